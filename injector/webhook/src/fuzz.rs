//! Fuzz targets of what the API server sends, and of the Secret the certificates are kept in.

use coffer_fuzz::{Target, text};
use serde_json::{Value, json};

use crate::review::answer;
use crate::settings::Settings;

fn settings() -> Settings {
    Settings {
        server_addr: "https://coffer:8200".to_owned(),
        ca_pem: String::new(),
        cluster: "c".to_owned(),
        auth_mount: "kubernetes/c".to_owned(),
        audience: "coffer".to_owned(),
        agent_image: "agent:1".to_owned(),
        agent_image_pull_policy: "IfNotPresent".to_owned(),
    }
}

/// A patch applies, takes nothing away, and a pod that was patched is left alone.
#[test]
fn a_review_is_answered_once_and_for_all() {
    let words = [
        "request",
        "uid",
        "object",
        "spec",
        "containers",
        "initContainers",
        "volumes",
        "volumeMounts",
        "name",
        "app",
        "annotations",
        "coffer.dev/inject",
        "coffer.dev/order",
        "last",
        "coffer-agent",
        "securityContext",
        "runAsUser",
        "hostNetwork",
        "/coffer/secrets",
        "mountPath",
        "CREATE",
        "UPDATE",
    ];
    Target::new("review").words(&words).runs(3_000).run(|input| {
        let Some(reply) = answer(input, &settings()) else { return "no review".into() };
        // Nested deeper than this reader goes, in a part that is none of ours.
        let Ok(review) = serde_json::from_slice::<Value>(input) else { return "deep".into() };
        let reply = serde_json::to_value(reply).unwrap();
        let response = &reply["response"];
        assert_eq!(response["uid"], review["request"]["uid"]);
        let Some(patch) = response["patch"].as_array() else {
            return format!("{}", response["allowed"]);
        };
        assert_eq!(response["allowed"], true);
        let bytes: Vec<u8> = patch.iter().map(|n| u8::try_from(n.as_u64().unwrap()).unwrap()).collect();
        let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
        let before = review["request"]["object"].clone();
        let mut after = before.clone();
        json_patch::patch(&mut after, &patch).unwrap();
        for list in ["containers", "initContainers", "volumes"] {
            let names = |pod: &Value| -> Vec<Value> {
                let items = pod["spec"][list].as_array().cloned().unwrap_or_default();
                items.into_iter().map(|item| item["name"].clone()).collect()
            };
            let (old, new) = (names(&before), names(&after));
            assert!(old.iter().all(|name| new.contains(name)), "{list} lost one");
        }
        let mut again = review.clone();
        again["request"]["object"] = after;
        let second =
            serde_json::to_value(answer(again.to_string().as_bytes(), &settings()).unwrap()).unwrap();
        assert!(second["response"]["patch"].is_null() && second["response"]["allowed"] == true, "{second}");
        format!("patched {}", patch.0.len())
    });
}

/// What the Secret holds is either what was written there or is made anew.
#[test]
fn a_secret_of_certificates_is_whole_or_none() {
    let words = [
        "ca.crt",
        "tls.crt",
        "tls.key",
        "previous.crt",
        "previous.key",
        "coffer.dev/serve-from",
        "18446744073709551616",
        "AA==",
    ];
    Target::new("webhook-secret").words(&words).run(|input| {
        let Ok(secret) = serde_json::from_slice(input) else { return "no Secret".into() };
        let Some(stored) = crate::keystore::read(&secret) else { return "made anew".into() };
        let again = crate::keystore::write("x", &stored);
        assert_eq!(crate::keystore::read(&again).as_ref(), Some(&stored));
        let value = json!(again);
        format!("{} {}", stored.previous.is_some(), text(value.to_string().as_bytes()).len().min(1))
    });
}
