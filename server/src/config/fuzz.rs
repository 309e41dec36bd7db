//! Fuzz target of the configuration file.

use coffer_fuzz::{Target, kind, text};

use super::Config;

/// Names are not resolved here: whatever looks like one is left out.
#[test]
fn a_configuration_is_refused_with_its_place_or_is_safe() {
    let words = [
        "listener \"tcp\" {",
        "}",
        "address = \"127.0.0.1:8200\"",
        "address = \"0.0.0.0:8200\"",
        "tls_disable = true",
        "tls_cert_file = \"/c\"",
        "tls_key_file = \"/k\"",
        "storage \"inmem\" {}",
        "storage \"embedded\" { path = \"/d\" }",
        "audit \"file\" { file_path = \"/a/audit.log\" }",
        "default_lease_ttl = \"1h\"",
        "max_lease_ttl = 60",
        "cache_bytes = 0",
        "durability",
        "rotate_bytes",
        "log_level = \"warn\"",
        "\"",
        "{",
        "[",
        "]",
        "=",
        ",",
    ];
    Target::new("config").words(&words).run(|input| {
        let source = text(input);
        if names_a_host(&source) {
            return "a name".into();
        }
        match Config::parse("c.hcl", &source) {
            Ok(config) => {
                assert!(!config.listeners.is_empty());
                let plain = config.listeners.iter().filter(|listener| listener.tls.is_none());
                assert!(
                    plain.into_iter().all(|listener| listener.address.ip().is_loopback()),
                    "plain HTTP beyond loopback"
                );
                let (default, max) = (config.default_lease_ttl, config.max_lease_ttl);
                assert!(default.zip(max).is_none_or(|(default, max)| default <= max));
                assert_eq!(Config::parse("c.hcl", &source).unwrap(), config);
                format!("{} {}", config.storage.name(), config.warnings.len().min(5))
            }
            Err(why) => {
                let why = why.to_string();
                assert!(why.starts_with("c.hcl"), "{why}");
                kind(&why)
            }
        }
    });
}

/// Whether an address in it would be looked up.
fn names_a_host(source: &str) -> bool {
    let mut rest = source.split("address");
    rest.next();
    rest.any(|after| {
        let value = after.split('"').nth(if after.starts_with('"') { 2 } else { 1 }).unwrap_or_default();
        value.parse::<std::net::SocketAddr>().is_err()
    })
}
