//! Fuzz targets of the fields of requests to `kv`, and of what is stored of secrets.

use coffer_fuzz::{Target, kind, text};
use serde_json::Value;

use super::fields::Fields;
use super::record::{Meta, Settings};
use crate::input;

const NAMES: [&str; 6] =
    ["cas", "versions", "delete_version_after", "custom_metadata", "cas_required", "data"];

/// Whatever a field holds, a refusal does not repeat it: it may be a secret.
#[test]
fn fields_are_bounded_and_refusals_hold_no_value() {
    let words = [
        "cas",
        "versions",
        "delete_version_after",
        "custom_metadata",
        "hunter2",
        "1,2",
        "-1s",
        "1h",
        "true",
        "1e99",
    ];
    Target::new("kv-fields").words(&words).run(|input| {
        let Ok(Value::Object(body)) = serde_json::from_slice(input) else { return "no object".into() };
        let mut answer = String::new();
        let mut note = |result: Result<String, crate::EngineError>| match result {
            Ok(word) => answer.push_str(&word),
            Err(why) => {
                let why = why.to_string();
                let may_repeat = why.contains("time: invalid duration") || why.contains("invalid duration");
                assert!(may_repeat || !why.contains("hunter2"), "{why}");
                assert!(why.len() < 16 << 10, "a refusal of {} bytes", why.len());
                answer.push_str(&kind(&why));
            }
        };
        for fields in [Fields::of(&body), Fields::after_lookup(&body)] {
            for name in NAMES {
                note(fields.int(name).map(|n| n.is_some().to_string()));
                note(fields.boolean(name).map(|b| format!("{b:?}")));
                note(fields.seconds(name).map(|s| s.is_some().to_string()));
                note(fields.positive_seconds(name).map(|s| s.is_some().to_string()));
                note(fields.map(name).map(|m| m.is_some().to_string()));
                note(fields.ints(name, 100).map(|list| {
                    assert!(list.len() <= 100);
                    list.len().min(3).to_string()
                }));
            }
        }
        note(input::labels(&body).map(|labels| {
            assert!(labels.as_ref().is_none_or(|l| l.len() <= input::LABELS_MAX));
            labels.is_some().to_string()
        }));
        for name in NAMES {
            note(input::text(&body, name).map(|t| t.is_some().to_string()));
            note(input::texts(&body, name, true).map(|t| t.is_some().to_string()));
            note(input::duration(&body, name).map(|t| t.is_some().to_string()));
        }
        answer
    });
}

#[test]
fn what_is_stored_of_a_secret_reads_back_as_it_is_written() {
    let words = [
        "format",
        "current",
        "oldest",
        "versions",
        "deleted",
        "destroyed",
        "settings",
        "labels",
        "never_delete",
    ];
    Target::new("kv-record").words(&words).run(|input| {
        let meta = serde_json::from_slice::<Meta>(input);
        if let Ok(meta) = &meta {
            let once = serde_json::to_vec(meta).unwrap();
            let again: Meta = serde_json::from_slice(&once).unwrap();
            assert_eq!(text(&serde_json::to_vec(&again).unwrap()), text(&once));
        }
        let settings = serde_json::from_slice::<Settings>(input);
        if let Ok(settings) = &settings {
            assert!(settings.delete_after_text().len() < 64);
        }
        format!("{} {}", meta.is_ok(), settings.is_ok())
    });
}
