//! Fuzz targets of what pods' authors and namespaces' admins write.

use std::collections::BTreeMap;

use coffer_fuzz::{Target, kind, text};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::annotations::{INJECT, PREFIX, parse};
use crate::duration::{SECONDS_MAX, parse_seconds};
use crate::{CofferConnectionSpec, DatabaseConnectionSpec, DynamicSecretSpec, VaultPolicySpec};

#[test]
fn annotations_are_honoured_in_full_or_refused_in_a_sentence() {
    let words = [
        "coffer.dev/inject",
        "coffer.dev/secret.a",
        "coffer.dev/template.a",
        "coffer.dev/file.a",
        "coffer.dev/file-mode.a",
        "coffer.dev/on-change.a",
        "coffer.dev/mount-path",
        "coffer.dev/order",
        "a,b",
        "..",
        "/",
        "http=http://127.0.0.1:80/",
        "http=http://[::1].example/",
        "0440",
        "4777",
        "first",
    ];
    Target::new("annotations").words(&words).run(|input| {
        let Ok(annotations) = serde_json::from_slice::<BTreeMap<String, String>>(input) else {
            return "no map".into();
        };
        let request = match parse(&annotations) {
            Ok(Some(request)) => request,
            Ok(None) => {
                assert!(!annotations.contains_key(INJECT));
                return "not asked".into();
            }
            Err(why) => return kind(&why),
        };
        assert!((1..=64).contains(&request.secrets.len()));
        for secret in &request.secrets {
            let file = secret.file.as_deref().unwrap_or("x");
            assert!(
                !file.split('/').any(|s| s.is_empty() || s == "." || s == "..") && !secret.name.contains('/')
            );
            let mode = secret.mode.as_deref().map(|mode| u32::from_str_radix(mode, 8).unwrap());
            assert!(mode.is_none_or(|mode| mode <= 0o777));
            if let Some(url) = &secret.on_change_http {
                assert!(url.starts_with("http://") && !url.contains("evil"), "{url}");
            }
        }
        assert!(request.mount_path.starts_with('/') && !request.mount_path.split('/').any(|s| s == ".."));
        let ours = annotations.keys().filter(|key| key.starts_with(PREFIX)).count();
        format!("{} {ours} {:?}", request.secrets.len().min(9), request.order)
    });
}

#[test]
fn a_duration_is_what_the_schema_allows() {
    let words = ["h", "m", "s", "1h30m", "d", "-", ".", " ", "٣"];
    Target::new("crd-duration").words(&words).run(|input| {
        let given = text(input);
        let Some(seconds) = parse_seconds(&given) else { return "refused".into() };
        assert!(seconds <= SECONDS_MAX);
        assert!(given.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'h' | b'm' | b's')));
        assert_eq!(parse_seconds(&format!("{seconds}s")), Some(seconds));
        format!("{}", seconds == 0)
    });
}

/// What is read is written as it would be read again.
fn steady<T: DeserializeOwned + Serialize>(value: &Value) -> bool {
    let Ok(spec) = serde_json::from_value::<T>(value.clone()) else { return false };
    let once = serde_json::to_value(&spec).unwrap();
    let again: T = serde_json::from_value(once.clone()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), once);
    true
}

#[test]
fn specs_read_back_as_they_are_written() {
    let words = [
        "rules",
        "path",
        "capabilities",
        "read",
        "deny",
        "bindings",
        "engine",
        "host",
        "profiles",
        "source",
        "database",
        "files",
        "onChange",
        "scope",
        "PerPod",
        "delegations",
    ];
    Target::new("crd-spec").words(&words).run(|input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return "no JSON".into() };
        let read = [
            steady::<VaultPolicySpec>(&value),
            steady::<DatabaseConnectionSpec>(&value),
            steady::<DynamicSecretSpec>(&value),
            steady::<CofferConnectionSpec>(&value),
        ];
        format!("{read:?}")
    });
}
