//! PostgreSQL's connection URLs: `postgresql://{{username}}:{{password}}@host:port/database?parameters`.
//! Never reads a parameter that is not in its list.

use crate::EngineError;
use crate::database::url::{
    CONNECT_DEFAULT, Target, Tls, after_login, checked_database, checked_host, checked_timeout, not_allowed,
    parameters, refused, split_port,
};

const PORT: u16 = 5432;

/// Reads one.
pub(in crate::database) fn parse(url: &str) -> Result<Target, EngineError> {
    let rest = url
        .strip_prefix("postgresql://")
        .or_else(|| url.strip_prefix("postgres://"))
        .ok_or_else(|| refused("it must begin with postgresql://"))?;
    let rest = after_login(rest)?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = split_port(authority, PORT)?;
    let mut target = Target {
        host: checked_host(host)?,
        port,
        database: checked_database(if database.is_empty() { "postgres" } else { database })?,
        tls: Tls::Full,
        connect_timeout: CONNECT_DEFAULT,
        ignored: Vec::new(),
    };
    for (name, value) in parameters(query)? {
        match name {
            "sslmode" => target.tls = checked_tls(&target, value)?,
            "connect_timeout" => target.connect_timeout = checked_timeout(name, value)?,
            // The session's name carries the fencing epoch, so nobody else may choose it.
            "application_name" => target.ignored.push("application_name"),
            other => return Err(not_allowed(other)),
        }
    }
    Ok(target)
}

fn checked_tls(target: &Target, mode: &str) -> Result<Tls, EngineError> {
    match mode {
        "verify-full" => Ok(Tls::Full),
        // As in libpq: with a CA at hand, "require" checks against it. Without one it is refused later.
        "verify-ca" | "require" => Ok(Tls::Ca),
        "disable" if target.loopback() => Ok(Tls::Off),
        "disable" => Err(refused("sslmode=disable is for loopback addresses only")),
        "allow" | "prefer" => Err(refused("this sslmode does not protect: use verify-full or verify-ca")),
        _ => Err(refused("unknown sslmode")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::database::driver::Plugin;

    const LOGIN: &str = "{{username}}:{{password}}";

    fn at(rest: &str) -> String {
        format!("postgresql://{LOGIN}@{rest}")
    }

    #[test]
    fn reads_what_people_write() {
        let target = Target::parse(
            Plugin::Postgres,
            &at("db.shop.svc:6432/orders?sslmode=verify-full&connect_timeout=3"),
        )
        .unwrap();
        assert_eq!((target.host.as_str(), target.port), ("db.shop.svc", 6432));
        assert_eq!((target.database.as_str(), target.tls), ("orders", Tls::Full));
        assert_eq!(target.connect_timeout, Duration::from_secs(3));
        let target =
            Target::parse(Plugin::Postgres, &at("[::1]?sslmode=disable&application_name=x")).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("::1", 5432, Tls::Off));
        assert_eq!((target.database.as_str(), target.ignored), ("postgres", vec!["application_name"]));
        let spaced = "postgres://{{ username }}:{{ password }}@10.0.0.1/x?sslmode=require";
        assert_eq!(Target::parse(Plugin::Postgres, spaced).unwrap().tls, Tls::Ca);
        assert_eq!(
            Target::parse(Plugin::Postgres, &at("db/x")).unwrap().tls,
            Tls::Full,
            "the safest mode is the default"
        );
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
            let error = Target::parse(Plugin::Postgres, &bad).expect_err(&bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn knows_when_a_password_would_go_elsewhere() {
        let parse = |rest: &str| Target::parse(Plugin::Postgres, &at(rest)).unwrap();
        let base = parse("db/x?sslmode=verify-full");
        assert!(base.same_server(&parse("DB:5432/y")));
        for other in ["db2/x", "db:5433/x", "db/x?sslmode=verify-ca"] {
            assert!(!base.same_server(&parse(other)), "{other}");
        }
    }
}
