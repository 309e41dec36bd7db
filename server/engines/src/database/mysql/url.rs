//! MySQL's connection URLs, in the form of Go's driver as Vault has them:
//! `{{username}}:{{password}}@tcp(host:port)/database?parameters`, with or without `mysql://` before it.
//! Never reads a parameter that is not in its list.

use crate::EngineError;
use crate::database::url::{
    CONNECT_DEFAULT, Target, Tls, after_login, checked_database, checked_host, checked_timeout, not_allowed,
    parameters, refused, split_port,
};

const PORT: u16 = 3306;
/// What Go's driver does with results, which nobody here sees.
const IGNORED: [&str; 5] = ["parseTime", "charset", "collation", "loc", "multiStatements"];

/// Reads one.
pub(in crate::database) fn parse(url: &str) -> Result<Target, EngineError> {
    let rest = after_login(url.strip_prefix("mysql://").unwrap_or(url))?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let authority = match authority.split_once('(') {
        Some(("tcp", inner)) => inner.strip_suffix(')').ok_or_else(|| refused("unclosed bracket"))?,
        Some(_) => return Err(refused("only tcp(host:port) is spoken, no files and no sockets")),
        None => authority,
    };
    let (host, port) = split_port(authority, PORT)?;
    let mut target = Target {
        host: checked_host(host)?,
        port,
        database: if database.is_empty() { String::new() } else { checked_database(database)? },
        tls: Tls::Full,
        connect_timeout: CONNECT_DEFAULT,
        ignored: Vec::new(),
    };
    for (name, value) in parameters(query)? {
        match name {
            "tls" => target.tls = checked_tls(&target, value)?,
            "timeout" => {
                target.connect_timeout = checked_timeout(name, value.strip_suffix('s').unwrap_or(value))?;
            }
            other => match IGNORED.into_iter().find(|known| *known == other) {
                Some(known) => target.ignored.push(known),
                None => return Err(not_allowed(other)),
            },
        }
    }
    Ok(target)
}

fn checked_tls(target: &Target, mode: &str) -> Result<Tls, EngineError> {
    match mode {
        // "custom" is what Vault's own documentation uses together with tls_ca.
        "true" | "custom" => Ok(Tls::Full),
        "false" if target.loopback() => Ok(Tls::Off),
        "false" => Err(refused("tls=false is for loopback addresses only")),
        "skip-verify" | "preferred" => Err(refused("this tls mode does not protect: use tls=true")),
        _ => Err(refused("unknown tls mode")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::database::driver::Plugin;

    const LOGIN: &str = "{{username}}:{{password}}";

    fn at(rest: &str) -> String {
        format!("{LOGIN}@{rest}")
    }

    #[test]
    fn reads_what_people_write() {
        let target = parse(&at("tcp(db.shop.svc:3307)/orders?tls=custom&timeout=3s&parseTime=true")).unwrap();
        assert_eq!((target.host.as_str(), target.port), ("db.shop.svc", 3307));
        assert_eq!((target.database.as_str(), target.tls), ("orders", Tls::Full));
        assert_eq!((target.connect_timeout, target.ignored), (Duration::from_secs(3), vec!["parseTime"]));
        let target = parse(&at("tcp([::1])/?tls=false")).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("::1", 3306, Tls::Off));
        assert_eq!(target.database, "");
        assert_eq!(
            parse(&format!("mysql://{}", at("db/x"))).unwrap().tls,
            Tls::Full,
            "the safest is the default"
        );
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "tcp(db)/x".to_owned(),
            "admin:hunter2@tcp(db)/x".to_owned(),
            "{{username}}:hunter2@tcp(db)/x".to_owned(),
            "postgresql://{{username}}:{{password}}@db/x".to_owned(),
            at("unix(/run/mysqld/mysqld.sock)/x"),
            at("tcp(a,b)/x"),
            at("tcp(db/x"),
            at("tcp(db:0)/x"),
            at("tcp(db)/x/y"),
            at("tcp(db)/x?tls=false"),
            at("tcp(db)/x?tls=skip-verify"),
            at("tcp(db)/x?tls=preferred"),
            at("tcp(127.0.0.1.evil.example)/x?tls=false"),
            at("tcp(db)/x?allowAllFiles=true"),
            at("tcp(db)/x?allowCleartextPasswords=true"),
            at("tcp(db)/x?serverPubKey=x"),
            at("tcp(db)/x?tls=true&tls=false"),
            at(&"x".repeat(2000)),
        ] {
            let error = Target::parse(Plugin::MySql, &bad).expect_err(&bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
