//! Where a database is: what the connection URLs of all databases have in common, and how strictly it is read.
//!
//! What is not understood is refused: a URL comes from people who may name a database but must not be able to
//! read files of the server, weaken TLS, or put a login where it can be read back. Never holds a login.

use std::net::IpAddr;
use std::time::Duration;

use super::driver::Plugin;
use super::{mysql, postgres};
use crate::EngineError;

const URL_BYTES_MAX: usize = 1024;
const LOGIN: &str = "{{username}}:{{password}}";
/// How long a connection may take to be there.
pub(super) const CONNECT_DEFAULT: Duration = Duration::from_secs(5);

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
    /// Reads a URL in the form of the plugin's database.
    pub(super) fn parse(plugin: Plugin, url: &str) -> Result<Self, EngineError> {
        if url.len() > URL_BYTES_MAX {
            return Err(refused(format!("longer than {URL_BYTES_MAX} bytes")));
        }
        match plugin {
            Plugin::Postgres => postgres::url::parse(url),
            Plugin::MySql => mysql::url::parse(url),
        }
    }

    pub(super) fn loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether a password meant for one of the two would go to another server, or over a weaker link, in the
    /// other.
    pub(super) fn same_server(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port && self.tls == other.tls
    }
}

/// The parameters behind the `?`, none of them twice.
pub(super) fn parameters(query: &str) -> Result<Vec<(&str, &str)>, EngineError> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.iter().any(|(other, _)| *other == name) {
            return Err(refused("a parameter is given twice"));
        }
        seen.push((name, value));
    }
    Ok(seen)
}

/// A parameter that is not in the list.
pub(super) fn not_allowed(name: &str) -> EngineError {
    let name: String = name.chars().take(40).filter(|c| !c.is_control()).collect();
    refused(format!("parameter {name:?} is not allowed"))
}

/// What stands behind the login.
pub(super) fn after_login(rest: &str) -> Result<&str, EngineError> {
    let login_refused = || {
        refused(format!(
            "it must have {LOGIN}@ before the host; the login itself goes into username and password"
        ))
    };
    let (login, rest) = rest.rsplit_once('@').ok_or_else(login_refused)?;
    if login.replace(' ', "") == LOGIN { Ok(rest) } else { Err(login_refused()) }
}

pub(super) fn refused(why: impl std::fmt::Display) -> EngineError {
    EngineError::bad(format!("connection_url: {why}"))
}

/// Seconds to wait for a connection, as `text` has them; never longer than [`CONNECT_DEFAULT`].
pub(super) fn checked_timeout(name: &str, text: &str) -> Result<Duration, EngineError> {
    let secs: u64 = text.parse().map_err(|_| refused(format!("{name} must be seconds")))?;
    if !(1..=30).contains(&secs) {
        return Err(refused(format!("{name} must be 1 to 30 seconds")));
    }
    Ok(Duration::from_secs(secs).min(CONNECT_DEFAULT))
}

/// A host, and the port behind it or the default one.
pub(super) fn split_port(authority: &str, default: u16) -> Result<(&str, u16), EngineError> {
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
        None => default,
        Some(text) if text.bytes().all(|c| c.is_ascii_digit()) => {
            text.parse().ok().filter(|port| *port != 0).ok_or_else(|| refused("invalid port"))?
        }
        Some(_) => return Err(refused("invalid port")),
    };
    Ok((host, port))
}

/// One host.
pub(super) fn checked_host(host: &str) -> Result<String, EngineError> {
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

/// A database's name.
pub(super) fn checked_database(name: &str) -> Result<String, EngineError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    if name.len() > 63 || !name.bytes().all(allowed) {
        return Err(refused("the database's name may have letters, digits, '_', '-' and '.'"));
    }
    Ok(name.to_owned())
}
