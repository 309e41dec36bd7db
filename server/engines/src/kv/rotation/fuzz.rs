//! Fuzz target of rotation policies and of what webhooks answer.

use std::collections::BTreeMap;

use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use coffer_fuzz::{Target, kind};
use serde_json::Value;

use super::hook;
use super::policy::Policy;
use crate::engine::{EngineRequest, Op};

#[test]
fn policies_read_back_and_nothing_repeats_a_value() {
    let words = [
        "rotation_period",
        "rotation_schedule",
        "rotation_window",
        "length",
        "charset",
        "field",
        "password_policy",
        "webhook_url",
        "webhook_secret",
        "hunter2",
        "webhook_auth",
        "bearer",
        "https://a.example.org",
        "data",
        "24h",
    ];
    Target::new("kv-rotation").words(&words).run(|input| {
        let answer = hook::data_of("https://a.example.org/x", &SecretBytes::new(input.to_vec()));
        if let Err(why) = &answer {
            assert!(!why.to_string().contains("hunter2"), "{why}");
        }
        let Ok(Value::Object(body)) = serde_json::from_slice(input) else {
            return format!("{}", answer.is_ok());
        };
        let query = BTreeMap::new();
        let req = EngineRequest {
            op: Op::Write,
            path: "rotation/x",
            body: &body,
            exact: None,
            query: &query,
            now: Timestamp::from_secs(1_800_000_000),
            display_name: "fuzz",
            sees: &|_| true,
        };
        let policy = match Policy::merged(None, &req) {
            Ok(policy) => policy,
            Err(why) => return kind(&why),
        };
        assert!(policy.due() > req.now);
        if let Some(webhook) = &policy.webhook {
            let origin = hook::origin(&webhook.url).unwrap();
            assert!(origin.starts_with("https://") && hook::origin(&origin).unwrap() == origin);
            assert!(!serde_json::to_string(&policy.json()).unwrap().contains("webhook_secret"));
        }
        let once = serde_json::to_string(&policy).unwrap();
        let again: Policy = serde_json::from_str(&once).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), once);
        format!("{} {} {}", answer.is_ok(), policy.generator.is_some(), policy.webhook.is_some())
    });
}
