//! Configurations, right and wrong, with the very words of the refusals.

use coffer_storage::embedded::CACHE_BYTES;
use coffer_vault::{AuditSettings, Covered, Durability, OnFailure, Outbound};

use super::*;

const TLS: &str = r#"
listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/tls/tls.crt"
  tls_key_file  = "/tls/tls.key"
}
"#;

fn ok(source: &str) -> Config {
    Config::parse("c.hcl", source).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(source: &str) -> String {
    Config::parse("c.hcl", source).unwrap_err().to_string()
}

#[test]
fn a_whole_configuration_in_vaults_form() {
    let clients = TLS.replace(
        "tls_key_file ",
        "tls_client_ca_file = \"/tls/clients.crt\"\n  tls_require_and_verify_client_cert = true\n  tls_key_file ",
    );
    let config = ok(&format!(
        r#"{clients}
storage "embedded" {{ path = "/var/lib/coffer" }}
audit "file" {{ file_path = "/var/log/coffer/audit.log" }}
default_lease_ttl = "1h"
max_lease_ttl = 86400
api_addr = "https://coffer.example.org:8200/"
cluster_name = "prod"
ca_file = "/tls/ca.crt"
log_level = "WARN"
log_format = "json"
pid_file = "/run/coffer.pid"
"#
    ));
    assert_eq!(config.warnings, Vec::<String>::new());
    let tls = TlsFiles {
        cert: "/tls/tls.crt".into(),
        key: "/tls/tls.key".into(),
        clients: Some("/tls/clients.crt".into()),
        clients_required: true,
    };
    let address = "0.0.0.0:8200".parse().unwrap();
    assert_eq!(
        config.listeners,
        [Listener {
            address,
            tls: Some(tls),
            connections_max: CONNECTIONS_MAX,
            connections_per_client_max: CONNECTIONS_MAX / 4,
            limits: Limits::default(),
            proxies: None
        }]
    );
    assert_eq!(
        config.storage,
        Storage::Embedded { path: "/var/lib/coffer".into(), cache_bytes: CACHE_BYTES }
    );
    assert_eq!(config.audit_dir, PathBuf::from("/var/log/coffer"));
    assert_eq!(config.default_lease_ttl, Some(Duration::from_secs(3600)));
    assert_eq!(config.max_lease_ttl, Some(Duration::from_secs(86_400)));
    assert_eq!(config.api_addr.as_deref(), Some("https://coffer.example.org:8200"));
    assert_eq!(config.cluster_name.as_deref(), Some("prod"));
    assert_eq!(config.log_level.as_deref(), Some("warn"));
    assert_eq!(config.ca_file, Some("/tls/ca.crt".into()));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.pid_file, Some("/run/coffer.pid".into()));
}

#[test]
fn several_files_and_directories_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("10-listen.hcl", TLS);
    write("20-store.json", r#"{"storage": {"embedded": {"path": "/d"}}, "log_level": "info"}"#);
    write("30-more.hcl", "log_level = \"debug\"\nfrobnicate = 1\n");
    write("notes.txt", "this is no configuration");
    let config = Config::load(&[dir.path().to_owned()]).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.storage, Storage::Embedded { path: "/d".into(), cache_bytes: CACHE_BYTES });
    assert_eq!(config.log_level.as_deref(), Some("debug"), "the last one counts");
    let more = dir.path().join("30-more.hcl").display().to_string();
    assert_eq!(config.warnings, [format!("{more}:2:1: unknown key \"frobnicate\" is ignored")]);
    let paths = ["10-listen.hcl", "20-store.json"].map(|name| dir.path().join(name));
    assert_eq!(Config::load(&paths).unwrap().log_level.as_deref(), Some("info"));
    write("40-more.hcl", "storage \"inmem\" {}");
    let twice = Config::load(&[dir.path().to_owned()]).unwrap_err().to_string();
    assert!(twice.ends_with("40-more.hcl:1:1: expected one storage, found a second"), "{twice}");
    let empty = tempfile::tempdir().unwrap();
    let message = Config::load(&[empty.path().to_owned()]).unwrap_err().to_string();
    assert!(message.contains("expected files that end in .hcl or .json"), "{message}");
}

#[test]
fn every_parameter_is_in_the_reference() {
    let page = include_str!("../../../docs/reference/configuration.md");
    let known = [read::GLOBAL, listener::LISTENER, read::EMBEDDED, audit::OWN, audit::DEVICE];
    let known = known.into_iter().flatten().copied();
    let without_effect = read::WITHOUT_EFFECT.iter().chain(listener::LISTENER_WITHOUT_EFFECT);
    for key in known.chain(without_effect.map(|(key, _)| *key)) {
        assert!(page.contains(&format!("`{key}`")), "{key} is not in docs/reference/configuration.md");
    }
}

#[test]
fn json_in_both_its_forms_is_the_same() {
    let object = r#"{"listener": {"tcp": {"address": "127.0.0.1:8200", "tls_disable": true}},
        "storage": {"embedded": {"path": "/d"}}, "ui": true}"#;
    let array = r#"{"listener": [{"tcp": [{"address": "127.0.0.1:8200", "tls_disable": "1"}]}],
        "backend": [{"embedded": [{"path": "/d"}]}], "ui": true}"#;
    let (object, array) = (ok(object), ok(array));
    assert_eq!(object.listeners, array.listeners);
    assert_eq!(object.storage, array.storage);
    assert_eq!(object.audit_dir, PathBuf::from("/d/audit"));
    assert!(object.warnings[0].contains("\"ui\" has no effect: there is no web interface"));
}

#[test]
fn plain_http_is_for_loopback() {
    let with = |address: &str| {
        format!(
            "listener \"tcp\" {{ address = \"{address}\" tls_disable = true }}\nstorage \"embedded\" {{ path = \"/d\" }}"
        )
    };
    assert_eq!(ok(&with("127.0.0.1:0")).listeners[0].tls, None);
    assert_eq!(ok(&with("[::1]:8200")).listeners[0].tls, None);
    let message = refused(&with("0.0.0.0:8200"));
    assert_eq!(
        message,
        "c.hcl:1:43: \"tls_disable\" is for loopback addresses only, and 0.0.0.0:8200 is none"
    );
}

#[test]
fn unknown_keys_are_warnings_with_a_place() {
    let config =
        ok(&format!("{TLS}storage \"embedded\" {{\n path = \"/d\"\n sync = true\n}}\nfrobnicate = 1\n"));
    assert_eq!(
        config.warnings,
        ["c.hcl:9:2: unknown key \"sync\" is ignored", "c.hcl:11:1: unknown key \"frobnicate\" is ignored"]
    );
}

#[test]
fn wrong_values_are_refused_with_place_and_expectation() {
    let storage = "storage \"embedded\" { path = \"/d\" }\n";
    for (source, wanted) in [
        (format!("listener \"unix\" {{}}\n{storage}"), "c.hcl:1:1: listener \"unix\": expected \"tcp\""),
        (
            format!("listener \"tcp\" {{}}\n{storage}"),
            "c.hcl:1:1: expected \"address\" in this block: a host and port",
        ),
        (
            format!("listener \"tcp\" {{\n  address = \"nonsense\"\n}}\n{storage}"),
            "c.hcl:2:3: \"address\" must be a host and port, such as \"127.0.0.1:8200\" or \"[::]:8200\"",
        ),
        (
            format!("listener \"tcp\" {{\n  address = 8200\n}}\n{storage}"),
            "c.hcl:2:3: \"address\" must be a string",
        ),
        (
            format!("listener \"tcp\" {{ address = \"127.0.0.1:1\" }}\n{storage}"),
            "c.hcl:1:1: expected \"tls_cert_file\" in this block: the path of a PEM certificate chain",
        ),
        (
            format!(
                "listener \"tcp\" {{\n address = \"127.0.0.1:1\"\n tls_min_version = \"tls12\"\n}}\n{storage}"
            ),
            "c.hcl:3:2: \"tls_min_version\" must be \"tls13\": other versions are not spoken",
        ),
        (
            format!(
                "listener \"tcp\" {{\n address = \"127.0.0.1:1\"\n tls_disable = \"maybe\"\n}}\n{storage}"
            ),
            "c.hcl:3:2: \"tls_disable\" must be true or false",
        ),
        (
            format!("{TLS}storage \"raft\" {{ path = \"/d\" }}"),
            "c.hcl:7:1: storage \"raft\": expected \"embedded\" or \"inmem\"",
        ),
        (
            format!("{TLS}storage \"embedded\" {{}}"),
            "c.hcl:7:1: expected \"path\" in this block: the path of a directory",
        ),
        (format!("{TLS}{storage}backend \"inmem\" {{}}"), "c.hcl:8:1: expected one storage, found a second"),
        (format!("{TLS}{storage}max_lease_ttl = \"soon\""), "c.hcl:8:1: \"max_lease_ttl\": "),
        (
            format!("{TLS}{storage}max_lease_ttl = 0"),
            "c.hcl:8:1: \"max_lease_ttl\" must be a duration longer than zero, such as \"1h\"",
        ),
        (
            format!("{TLS}{storage}default_lease_ttl = \"2h\"\nmax_lease_ttl = \"1h\""),
            "c.hcl:8:1: \"default_lease_ttl\" must not exceed \"max_lease_ttl\"",
        ),
        (
            format!("{TLS}{storage}api_addr = \"coffer:8200\""),
            "c.hcl:8:1: \"api_addr\" must be an address such as \"https://coffer.example.org:8200\"",
        ),
        (
            format!("{TLS}{storage}audit \"file\" {{\n file_path = \"/var/log/other.json\"\n}}"),
            "c.hcl:9:2: \"file_path\" must end in /audit.log: the log has a directory of its own",
        ),
        (
            format!(
                "{}{storage}",
                TLS.replace("tls_key_file ", "tls_require_and_verify_client_cert = true\n  tls_key_file ")
            ),
            "c.hcl:5:3: \"tls_require_and_verify_client_cert\" needs \"tls_client_ca_file\"",
        ),
        (
            format!("{TLS}{storage}log_format = \"xml\""),
            "c.hcl:8:1: \"log_format\" must be \"standard\" or \"json\"",
        ),
        (format!("{TLS}{storage}audit \"socket\" {{}}"), "c.hcl:8:1: audit \"socket\": expected \"file\""),
        (
            format!("{TLS}{storage}log_level = \"loud\""),
            "c.hcl:8:1: \"log_level\" must be one of \"trace\", \"debug\", \"info\", \"warn\", \"error\"",
        ),
    ] {
        let message = refused(&source);
        assert!(message.starts_with(wanted), "wanted {wanted}\n got   {message}");
    }
}

#[test]
fn what_is_missing_as_a_whole() {
    assert!(refused("storage \"inmem\" {}").starts_with("c.hcl: expected at least one listener"));
    assert!(refused(TLS).starts_with("c.hcl: expected storage"));
    assert!(refused(&format!("{TLS}storage \"inmem\" {{}}")).starts_with("c.hcl: expected audit"));
    assert!(refused("listener \"tcp\" {").starts_with("c.hcl:1:"));
    let absent = Config::load(&["/nonexistent/c.hcl".into()]).unwrap_err().to_string();
    assert!(absent.starts_with("/nonexistent/c.hcl: "), "{absent}");
}

#[test]
fn audit_stanzas_say_what_is_written_and_where() {
    let config = ok(&format!(
        r#"{TLS}
storage "embedded" {{ path = "/d" }}
audit_directories = ["/var/log/devices"]
outbound_allowed_networks = ["127.0.0.0/8", "::1"]
audit "file" {{
  file_path     = "/var/log/coffer/audit.log"
  durability    = "disk"
  on_failure    = "degraded"
  buffer_bytes  = 1000000
  rotate_bytes  = 2000000
  quota_bytes   = 3000000
  reserve_bytes = 4000000
  retain        = "720h"
  hmac          = ["paths", "addresses"]
}}
audit "file" "first/" {{
  description = "one"
  options {{
    file_path     = "/var/log/devices/first.log"
    hmac_accessor = false
  }}
}}
audit "file" "second" {{ file_path = "/var/log/devices/second.log" }}
"#
    ));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.audit_dir, PathBuf::from("/var/log/coffer"));
    let expected = AuditSettings {
        durability: Durability::Disk,
        on_failure: OnFailure::Degraded { buffer_bytes: 1_000_000 },
        rotate_bytes: 2_000_000,
        quota_bytes: Some(3_000_000),
        reserve_bytes: Some(4_000_000),
        retain: Some(Duration::from_secs(720 * 3600)),
        covered: Covered { addresses: true, paths: true, ..Covered::default() },
        ..AuditSettings::default()
    };
    assert_eq!(config.audit, expected);
    assert_eq!(config.audit_directories, [PathBuf::from("/var/log/devices")]);
    assert_eq!(config.outbound, Outbound::allowing(&["127.0.0.0/8", "::1"]).unwrap());
    let [first, second] = config.audit_devices.as_slice() else { panic!("{:?}", config.audit_devices) };
    assert_eq!((first.name.as_str(), first.description.as_str()), ("first", "one"));
    assert_eq!(first.options["hmac_accessor"], "false");
    assert_eq!(
        (second.name.as_str(), second.options["file_path"].as_str()),
        ("second", "/var/log/devices/second.log")
    );
}

#[test]
fn audit_stanzas_in_json_are_the_same() {
    let json = |audit: &str| {
        ok(&format!(
            r#"{{"listener": {{"tcp": {{"address": "127.0.0.1:8200", "tls_disable": true}}}},
            "storage": {{"embedded": {{"path": "/d"}}}}, "audit": {audit}}}"#
        ))
    };
    let device = r#"{"description": "one", "options": {"file_path": "/x/a.log"}}"#;
    for audit in [
        format!(r#"{{"file": {{"first": {device}}}}}"#),
        format!(r#"[{{"file": [{{"first": [{device}]}}]}}]"#),
        format!(r#"[{{"file": {{"first": {device}}}}}, {{"file": {{"file_path": "/l/audit.log"}}}}]"#),
    ] {
        let config = json(&audit);
        assert_eq!(config.audit_devices.len(), 1, "{audit}");
        assert_eq!(config.audit_devices[0].options["file_path"], "/x/a.log");
        let dir = if audit.contains("/l/") { "/l" } else { "/d/audit" };
        assert_eq!(config.audit_dir, PathBuf::from(dir));
    }
}

#[test]
fn audit_stanzas_that_cannot_be_meant_are_refused() {
    let of = |stanza: &str| refused(&format!("{TLS}storage \"inmem\" {{}}\n{stanza}"));
    for (stanza, wanted) in [
        ("audit \"file\" { durability = \"none\" }", "must be \"process\" or \"disk\""),
        ("audit \"file\" { file_path = \"/l/audit.log\"\n buffer_bytes = 5 }", "degraded"),
        ("audit \"file\" { rotate_bytes = 5 }", "at least"),
        ("audit \"file\" { hmac = [\"paths\", \"values\"] }", "a list of \"accessors\""),
        ("audit \"file\" { hmac = true }", "list"),
        ("audit \"file\" \"a\" { options { log_raw = true\n file_path = \"/x/a\" } }", "log_raw"),
        ("audit \"file\" \"a\" { options { mode = \"0644\"\n file_path = \"/x/a\" } }", "mode"),
        ("audit \"file\" \"a\" { }", "expected \"file_path\""),
        ("audit \"file\" \"chain\" { file_path = \"/x/a\" }", "taken by the server"),
        (
            "audit \"file\" \"a\" { file_path = \"/x/a\" }\naudit \"file\" \"a\" { file_path = \"/x/b\" }",
            "second",
        ),
        ("audit \"syslog\" \"a\" { }", "expected \"file\""),
        ("audit_directories = [\"x\"]", "absolute"),
        ("outbound_allowed_networks = [\"10.0.0.0/8\", \"x\"]", "has \"x\""),
    ] {
        let said = of(stanza);
        assert!(said.contains(wanted), "{stanza}: {said}");
    }
}

#[test]
fn caches_are_sized_in_bytes_and_can_be_turned_off() {
    let with = |more: &str| {
        Config::parse("c.hcl", &format!("{TLS}storage \"embedded\" {{ path = \"/d\" }}\n{more}"))
            .map_err(|error| error.to_string())
    };
    let config = with("cache_bytes = 1000000\ncache_ttl = \"2s\"").unwrap();
    assert_eq!((config.cache.bytes, config.cache.ttl.as_secs()), (1_000_000, 2));
    assert!(with("cache_ttl = \"0s\"").unwrap().cache.ttl.is_zero());
    for wrong in ["cache_ttl = \"1h\"", "cache_bytes = -1", "cache_bytes = \"much\""] {
        assert!(with(wrong).unwrap_err().starts_with("c.hcl:"), "{wrong}");
    }
    assert!(with("cache_size = 100").unwrap().warnings[0].contains("cache_bytes"));
}

#[test]
fn proxies_are_named_in_a_listener_and_nowhere_else() {
    let source = |keys: &str| {
        format!(
            "storage \"inmem\" {{}}\naudit \"file\" {{ file_path = \"/a/audit.log\" }}\nlistener \"tcp\" {{\n address = \"127.0.0.1:1\"\n tls_disable = true\n{keys}\n}}"
        )
    };
    let proxies = |keys: &str| Config::parse("f", &source(keys)).map(|c| c.listeners[0].proxies.clone());
    assert_eq!(proxies("").unwrap(), None);
    let given = "x_forwarded_for_authorized_addrs = [\"10.0.0.0/8\", \"::1\"]\nx_forwarded_for_hop_skips = 1\nx_forwarded_for_reject_not_present = false";
    let found = proxies(given).unwrap().unwrap();
    assert_eq!((found.hop_skips, found.reject_not_authorized, found.reject_not_present), (1, true, false));
    assert!(found.trusts([10, 1, 2, 3].into()) && !found.trusts([11, 1, 2, 3].into()));
    for wrong in [
        "x_forwarded_for_hop_skips = 1",
        "x_forwarded_for_authorized_addrs = \"\"",
        "x_forwarded_for_authorized_addrs = \"10.0.0.0/33\"",
        "x_forwarded_for_authorized_addrs = \"10.0.0.1\"\nx_forwarded_for_hop_skips = 99",
    ] {
        assert!(proxies(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn requests_and_connections_of_one_client_are_limited_as_configured() {
    let source = |listener: &str, top: &str| {
        format!(
            "listener \"tcp\" {{\n address = \"127.0.0.1:1\"\n tls_disable = true\n{listener}\n}}\nstorage \"embedded\" {{ path = \"/d\" }}\n{top}"
        )
    };
    let plain = ok(&source("", ""));
    assert_eq!((plain.client_request_rate, plain.token_request_rate), (None, None));
    let rates = ok(&source("", "client_request_rate = 50\ntoken_request_rate = 7"));
    assert_eq!((rates.client_request_rate, rates.token_request_rate), (Some(50), Some(7)));
    assert!(rates.warnings.is_empty(), "{:?}", rates.warnings);
    let few = ok(&source("max_connections = 9\nmax_connections_per_client = 3", ""));
    assert_eq!(few.listeners[0].connections_per_client_max, 3);
    assert_eq!(ok(&source("max_connections = 9", "")).listeners[0].connections_per_client_max, 9);
    let small =
        ok(&source("max_request_size = 2048\nhttp_read_timeout = \"2s\"\nhttp_idle_timeout = 60", ""));
    assert!(small.warnings.is_empty(), "{:?}", small.warnings);
    let limits = small.listeners[0].limits;
    assert_eq!((limits.body_bytes_max, limits.headers), (2048, Limits::default().headers));
    assert_eq!((limits.body_time, limits.idle), (Duration::from_secs(2), Duration::from_secs(60)));
    for wrong in ["max_request_size = 0", "max_request_size = 99999999", "http_read_timeout = \"0s\""] {
        assert!(Config::parse("f", &source(wrong, "")).is_err(), "{wrong}");
    }
    for wrong in ["client_request_rate = 0", "token_request_rate = -1"] {
        assert!(Config::parse("f", &source("", wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn the_stores_memory_for_pages_can_be_said_and_has_a_least() {
    let with = |size: &str| {
        let storage = format!("storage \"embedded\" {{\n path = \"/d\"\n cache_size = {size}\n}}\n");
        Config::parse("c.hcl", &format!("{TLS}{storage}")).map_err(|error| error.to_string())
    };
    let storage = with("33554432").unwrap().storage;
    assert_eq!(storage, Storage::Embedded { path: "/d".into(), cache_bytes: 33_554_432 });
    for wrong in ["0", "-1", "1000", "\"much\""] {
        assert!(with(wrong).unwrap_err().contains("cache_size"), "{wrong}");
    }
}
