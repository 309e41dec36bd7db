//! Connection URLs: a strict reading of `postgresql://{{username}}:{{password}}@host:port/database?parameters`.
//!
//! What is not understood is refused: a URL comes from people who may name a database but must not be able to
//! read files of the server, weaken TLS, or put a login where it can be read back. Never holds a login.

use std::net::IpAddr;
use std::time::Duration;

use crate::EngineError;

const URL_BYTES_MAX: usize = 1024;
const LOGIN: &str = "{{username}}:{{password}}";
const CONNECT_DEFAULT: Duration = Duration::from_secs(5);

/// How the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// It chains to the configured CA and names the host.
    Full,
    /// It chains to the configured CA.
    Ca,
    /// No TLS. On loopback only.
    Off,
}

/// Where a database is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// A DNS name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) tls: Tls,
    pub(super) connect_timeout: Duration,
    /// Parameters that are accepted and have no effect.
    pub(super) ignored: Vec<&'static str>,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, EngineError> {
        if url.len() > URL_BYTES_MAX {
            return Err(refused(format!("longer than {URL_BYTES_MAX} bytes")));
        }
        let rest = url
            .strip_prefix("postgresql://")
            .or_else(|| url.strip_prefix("postgres://"))
            .ok_or_else(|| refused("it must begin with postgresql://"))?;
        let (login, rest) = rest.rsplit_once('@').ok_or_else(login_refused)?;
        if login.replace(' ', "") != LOGIN {
            return Err(login_refused());
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = split_port(authority)?;
        let mut target = Self {
            host: checked_host(host)?,
            port,
            database: checked_database(database)?,
            tls: Tls::Full,
            connect_timeout: CONNECT_DEFAULT,
            ignored: Vec::new(),
        };
        target.read_parameters(query)?;
        Ok(target)
    }

    fn read_parameters(&mut self, query: &str) -> Result<(), EngineError> {
        let mut seen: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&name) {
                return Err(refused("a parameter is given twice"));
            }
            seen.push(name);
            match name {
                "sslmode" => self.tls = self.checked_tls(value)?,
                "connect_timeout" => {
                    let secs: u64 = value.parse().map_err(|_| refused("connect_timeout must be seconds"))?;
                    if !(1..=30).contains(&secs) {
                        return Err(refused("connect_timeout must be 1 to 30 seconds"));
                    }
                    self.connect_timeout = Duration::from_secs(secs).min(CONNECT_DEFAULT);
                }
                // The session's name carries the fencing epoch, so nobody else may choose it.
                "application_name" => self.ignored.push("application_name"),
                other => {
                    let name: String = other.chars().take(40).filter(|c| !c.is_control()).collect();
                    return Err(refused(format!("parameter {name:?} is not allowed")));
                }
            }
        }
        Ok(())
    }

    fn checked_tls(&self, mode: &str) -> Result<Tls, EngineError> {
        match mode {
            "verify-full" => Ok(Tls::Full),
            // As in libpq: with a CA at hand, "require" checks against it. Without one it is refused later.
            "verify-ca" | "require" => Ok(Tls::Ca),
            "disable" if self.loopback() => Ok(Tls::Off),
            "disable" => Err(refused("sslmode=disable is for loopback addresses only")),
            "allow" | "prefer" => Err(refused("this sslmode does not protect: use verify-full or verify-ca")),
            _ => Err(refused("unknown sslmode")),
        }
    }

    fn loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether a password meant for one of the two would go to another server, or over a weaker link, in the
    /// other.
    pub(super) fn same_server(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port && self.tls == other.tls
    }
}

fn refused(why: impl std::fmt::Display) -> EngineError {
    EngineError::bad(format!("connection_url: {why}"))
}

fn login_refused() -> EngineError {
    refused(format!(
        "it must have {LOGIN}@ before the host; the login itself goes into username and password"
    ))
}

fn split_port(authority: &str) -> Result<(&str, u16), EngineError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or_else(|| refused("unclosed bracket in host"))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(refused("invalid IPv6 address"));
        }
        match tail.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if tail.is_empty() => (host, None),
            None => return Err(refused("invalid port")),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = match port {
        None => 5432,
        Some(text) if text.bytes().all(|c| c.is_ascii_digit()) => {
            text.parse().ok().filter(|port| *port != 0).ok_or_else(|| refused("invalid port"))?
        }
        Some(_) => return Err(refused("invalid port")),
    };
    Ok((host, port))
}

fn checked_host(host: &str) -> Result<String, EngineError> {
    if host.parse::<IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    let labels = host.strip_suffix('.').unwrap_or(host);
    // A list of hosts, a socket's path and an escaped character all fail here.
    if host.len() > 253 || !labels.split('.').all(label) {
        return Err(refused("the host must be one DNS name or address"));
    }
    Ok(host.to_owned())
}

fn checked_database(name: &str) -> Result<String, EngineError> {
    let name = if name.is_empty() { "postgres" } else { name };
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    if name.len() > 63 || !name.bytes().all(allowed) {
        return Err(refused("the database's name may have letters, digits, '_', '-' and '.'"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rest: &str) -> String {
        format!("postgresql://{LOGIN}@{rest}")
    }

    #[test]
    fn reads_what_people_write() {
        let target =
            Target::parse(&at("db.shop.svc:6432/orders?sslmode=verify-full&connect_timeout=3")).unwrap();
        assert_eq!((target.host.as_str(), target.port), ("db.shop.svc", 6432));
        assert_eq!((target.database.as_str(), target.tls), ("orders", Tls::Full));
        assert_eq!(target.connect_timeout, Duration::from_secs(3));
        let target = Target::parse(&at("[::1]?sslmode=disable&application_name=x")).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("::1", 5432, Tls::Off));
        assert_eq!((target.database.as_str(), target.ignored), ("postgres", vec!["application_name"]));
        let spaced = "postgres://{{ username }}:{{ password }}@10.0.0.1/x?sslmode=require";
        assert_eq!(Target::parse(spaced).unwrap().tls, Tls::Ca);
        assert_eq!(Target::parse(&at("db/x")).unwrap().tls, Tls::Full, "the safest mode is the default");
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "mysql://{{username}}:{{password}}@db/x".to_owned(),
            "postgresql://db/x".to_owned(),
            "postgresql://admin:hunter2@db/x".to_owned(),
            "postgresql://{{username}}:hunter2@db/x".to_owned(),
            at("a,b/x"),
            at("/var/run/postgresql"),
            at("%2Fvar%2Frun/x"),
            at("db:0/x"),
            at("db:99999/x"),
            at("db:+1/x"),
            at("[::1/x"),
            at("[::1]x/x"),
            at("-db/x"),
            at("db/x/y"),
            at("db/x%00"),
            at("db/x?sslmode=prefer"),
            at("db/x?sslmode=disable"),
            at("127.0.0.1.evil.example/x?sslmode=disable"),
            at("db/x?sslrootcert=/etc/passwd"),
            at("db/x?sslkey=/etc/passwd"),
            at("db/x?options=-c%20x"),
            at("db/x?host=other"),
            at("db/x?sslmode=verify-full&sslmode=disable"),
            at("db/x?connect_timeout=0"),
            at(&"x".repeat(2000)),
        ] {
            let error = Target::parse(&bad).expect_err(&bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn knows_when_a_password_would_go_elsewhere() {
        let parse = |rest: &str| Target::parse(&at(rest)).unwrap();
        let base = parse("db/x?sslmode=verify-full");
        assert!(base.same_server(&parse("DB:5432/y")));
        for other in ["db2/x", "db:5433/x", "db/x?sslmode=verify-ca"] {
            assert!(!base.same_server(&parse(other)), "{other}");
        }
    }
}
