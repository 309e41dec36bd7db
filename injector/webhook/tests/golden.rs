//! Every pod shape in `golden/` against the answer beside it. `COFFER_UPDATE_GOLDEN=1` rewrites the answers;
//! the diff is then for a person to read.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use coffer_injector::patch::patch;
use coffer_injector::settings::Settings;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn settings() -> Settings {
    Settings {
        server_addr: "https://coffer.coffer-system.svc:8200".to_owned(),
        ca_pem: "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n".to_owned(),
        cluster: "prod".to_owned(),
        auth_mount: "kubernetes/prod".to_owned(),
        audience: "coffer".to_owned(),
        agent_image: "localhost/coffer/agent:1".to_owned(),
        agent_image_pull_policy: "IfNotPresent".to_owned(),
    }
}

fn cases() -> Vec<PathBuf> {
    let dir = coffer_fuzz::workspace().join("injector/webhook/tests/golden");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(".pod.yaml"))
        .collect();
    paths.sort();
    paths
}

fn pod(path: &Path) -> Pod {
    serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn answer(pod: &Pod) -> Value {
    match patch(pod, &settings()) {
        Ok(outcome) => json!({"patch": outcome.patch, "warnings": outcome.warnings}),
        Err(refusal) => json!({"refused": refusal.to_string()}),
    }
}

fn patched(path: &Path) -> Option<Value> {
    let pod = pod(path);
    let outcome = patch(&pod, &settings()).ok()?;
    let mut value = serde_json::to_value(&pod).unwrap();
    json_patch::patch(&mut value, &outcome.patch).unwrap();
    Some(value)
}

#[test]
fn every_shape_has_its_answer() {
    let cases = cases();
    assert!(cases.len() >= 20);
    for path in cases {
        let out = PathBuf::from(path.to_str().unwrap().replace(".pod.yaml", ".out.yaml"));
        let text = serde_yaml::to_string(&answer(&pod(&path))).unwrap();
        if std::env::var_os("COFFER_UPDATE_GOLDEN").is_some() {
            fs::write(&out, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&out).unwrap_or_default(), "{}", path.display());
    }
}

#[test]
fn an_injected_pod_is_left_alone() {
    for path in cases() {
        let Some(once) = patched(&path) else { continue };
        let again: Pod = serde_json::from_value(once).unwrap();
        assert!(patch(&again, &settings()).unwrap().patch.0.is_empty(), "{}", path.display());
    }
}

#[test]
fn the_agent_passes_pod_security_restricted() {
    for path in cases() {
        let Some(pod) = patched(&path) else { continue };
        let init = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
        let Some(agent) = init.iter().find(|c| c["name"] == "coffer-agent" && c.get("env").is_some()) else {
            continue;
        };
        let context = &agent["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(context["runAsNonRoot"], true);
        assert!(context["runAsUser"].as_i64().unwrap() > 0);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(agent["restartPolicy"], "Always");
        for volume in pod["spec"]["volumes"].as_array().unwrap() {
            assert!(volume.get("hostPath").is_none());
        }
    }
}

#[test]
fn no_reader_can_write_and_only_the_agent_sees_its_state() {
    for path in cases() {
        let Some(pod) = patched(&path) else { continue };
        let all = ["containers", "initContainers"].iter().flat_map(|list| pod["spec"][list].as_array());
        for container in all.flatten().filter(|c| c["name"] != "coffer-agent") {
            for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                assert_ne!(mount["name"], "coffer-state");
                assert_ne!(mount["name"], "coffer-token");
                if mount["name"] == "coffer-secrets" {
                    assert_eq!(mount["readOnly"], true);
                }
            }
        }
    }
}

#[test]
fn annotations_that_no_program_could_be_started_with_are_refused() {
    let pod = |template: &str| -> Pod {
        let mut annotations = json!({"coffer.dev/inject": "a,b,c"});
        for name in ["a", "b", "c"] {
            annotations[format!("coffer.dev/template.{name}")] = json!(template);
        }
        serde_json::from_value(json!({
            "metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app"}]}
        }))
        .unwrap()
    };
    assert!(patch(&pod(&"x".repeat(30_000)), &settings()).is_ok());
    // What counts is the length as JSON, where a quote takes two bytes.
    let refused = patch(&pod(&"\"".repeat(30_000)), &settings()).unwrap_err().to_string();
    assert!(refused.contains("DynamicSecret"), "{refused}");
}
