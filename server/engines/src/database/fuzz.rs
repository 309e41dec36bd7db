//! Fuzz targets of what an administrator says about databases.

use std::collections::BTreeMap;

use coffer_core::secret::SecretBytes;
use coffer_fuzz::{Target, kind, text};
use serde_json::Value;

use super::account::Account;
use super::connection::Connection;
use super::driver::Plugin;
use super::role::Role;
use super::url::{self, Tls};
use crate::engine::{EngineRequest, Op};

#[test]
fn a_connection_url_names_one_host_and_its_login_is_never_repeated() {
    let words = [
        "postgresql://",
        "postgres://",
        "mysql://",
        "{{username}}:{{password}}@",
        "tcp(",
        ")",
        "@",
        "sslmode=disable",
        "sslmode=verify-full",
        "tls=true",
        "tls=false",
        "[::1]",
        "localhost",
        "127.0.0.1",
        ",",
        "/",
        "?",
        "&",
        "%2f",
        "hunter2:hunter3@",
        "host=",
        "..",
        "\\",
    ];
    Target::new("database-url").words(&words).run(|input| {
        let given = text(input);
        let mut answer = String::new();
        for plugin in [Plugin::Postgres, Plugin::MySql] {
            let target = match url::Target::parse(plugin, &given) {
                Ok(target) => target,
                Err(why) => {
                    assert!(!why.to_string().contains("hunter"), "{why}");
                    answer.push_str(&kind(&why));
                    continue;
                }
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
            assert!(!target.host.is_empty() && target.host.chars().all(plain), "{}", target.host);
            assert!(given.contains(&target.host) && target.port != 0);
            let login = given.replace(' ', "");
            assert!(login.contains("{{username}}:{{password}}@"), "a login of its own");
            assert_eq!(login.matches('@').count(), 1);
            if target.tls == Tls::Off {
                let local = target.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
                assert!(local || target.host == "localhost", "no TLS to {}", target.host);
            }
            assert!(target.same_server(&target) && (1..=5).contains(&target.connect_timeout.as_secs()));
            answer.push_str(&format!("{:?}", target.tls));
        }
        answer
    });
}

#[test]
fn a_role_that_is_taken_can_make_accounts_and_stays_small() {
    let words = [
        "db_name",
        "creation_statements",
        "revocation_statements",
        "renew_statements",
        "default_ttl",
        "max_ttl",
        "custom_metadata",
        "{{name}}",
        "{{password}}",
        "{{expiration}}",
        "{{",
        "CREATE USER",
        "1h",
        "-1s",
        "../x",
    ];
    Target::new("database-role").words(&words).runs(3_000).run(|input| {
        let Ok(Value::Object(body)) = serde_json::from_slice(input) else { return "no object".into() };
        let query = BTreeMap::new();
        let req = EngineRequest {
            op: Op::Write,
            path: "roles/x",
            body: &body,
            exact: None,
            query: &query,
            now: coffer_core::time::Timestamp::from_secs(1_800_000_000),
            display_name: "fuzz",
            sees: &|_| true,
        };
        let role = match Role::merged(None, &req) {
            Ok(role) => role,
            Err(why) => return kind(&why),
        };
        let statements = role.statements.creation.concat();
        assert!(statements.len() <= 64 << 10 && statements.contains("{{"));
        assert!(role.max_ttl().is_zero() || role.ttl() <= role.max_ttl());
        let once = serde_json::to_string(&role).unwrap();
        let again: Role = serde_json::from_str(&once).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), once);
        format!("{}", role.statements.creation.len())
    });
}

#[test]
fn what_is_stored_about_databases_reads_back_as_it_is_written() {
    let words = [
        "format",
        "connection",
        "username",
        "password",
        "form",
        "expiration",
        "statements",
        "creation",
        "host",
        "plugin",
    ];
    Target::new("database-record").words(&words).run(|input| {
        let account = Account::decode(&SecretBytes::new(input.to_vec()));
        if let Ok(account) = &account {
            let once = serde_json::to_vec(account).unwrap();
            let again = Account::decode(&SecretBytes::new(once.clone())).unwrap();
            assert_eq!(serde_json::to_vec(&again).unwrap(), once);
            assert!(!format!("{account:?}").contains("hunter2"));
        }
        let connection = serde_json::from_slice::<Connection>(input);
        let role = serde_json::from_slice::<Role>(input);
        format!("{} {} {}", account.is_ok(), connection.is_ok(), role.is_ok())
    });
}
