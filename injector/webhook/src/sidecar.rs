//! The agent's container and its volumes. It passes Pod Security `restricted`, asks for next to nothing,
//! and starts before the containers that need its files. Pure.

use crate::runner::Runner;
use crate::settings::Settings;
use coffer_crds::annotations::{Request, SecretRequest};
use serde_json::{Value, json};

pub(crate) const CONTAINER: &str = "coffer-agent";
/// All volumes of the injector.
pub(crate) const VOLUMES: [&str; 3] = [SECRETS_VOLUME, STATE_VOLUME, TOKEN_VOLUME];
const SECRETS_VOLUME: &str = "coffer-secrets";
const STATE_VOLUME: &str = "coffer-state";
const TOKEN_VOLUME: &str = "coffer-token";

const STATE_DIR: &str = "/var/run/coffer/state";
const TOKEN_DIR: &str = "/var/run/coffer/serviceaccount";
const TOKEN_SECS: u32 = 3600;

pub(crate) fn container(request: &Request, settings: &Settings, runner: &Runner) -> Value {
    json!({
        "name": CONTAINER,
        "image": settings.agent_image,
        "imagePullPolicy": settings.agent_image_pull_policy,
        "args": ["run"],
        "command": ["/coffer-agent"],
        "env": env(request, settings, runner),
        // A native sidecar: starts before the application, stops after it, and keeps no Job running.
        "restartPolicy": "Always",
        "startupProbe": {
            "exec": {"command": ["/coffer-agent", "ready"]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            // A day: the agent waits for what does not exist yet, and killing it would not help.
            "failureThreshold": 86400
        },
        "resources": {
            "requests": {"cpu": "5m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"}
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": runner.gid,
            "runAsNonRoot": true,
            "runAsUser": runner.uid,
            "seccompProfile": {"type": "RuntimeDefault"}
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": SECRETS_VOLUME, "mountPath": request.mount_path},
            {"name": STATE_VOLUME, "mountPath": STATE_DIR},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_DIR, "readOnly": true}
        ]
    })
}

pub(crate) fn volumes(settings: &Settings) -> [Value; 3] {
    [
        json!({"name": SECRETS_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}}),
        json!({"name": STATE_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
            "audience": settings.audience, "expirationSeconds": TOKEN_SECS, "path": "token"
        }}]}}),
    ]
}

pub(crate) fn reader_mount(request: &Request) -> Value {
    json!({"name": SECRETS_VOLUME, "mountPath": request.mount_path, "readOnly": true})
}

/// Length of the largest variable as the agent gets it: the kubelet has undone the doubled dollar signs by then.
pub(crate) fn secrets_bytes(request: &Request) -> usize {
    secrets(&request.secrets).len()
}

fn env(request: &Request, settings: &Settings, runner: &Runner) -> Vec<Value> {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let text = |name: &str, value: &str| json!({"name": name, "value": literal(value)});
    let mut env = vec![
        field("COFFER_NAMESPACE", "metadata.namespace"),
        field("COFFER_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        text("COFFER_ADDR", &settings.server_addr),
        text("COFFER_AUTH_MOUNT", &settings.auth_mount),
        text("COFFER_CA_PEM", &settings.ca_pem),
        text("COFFER_CLUSTER", &settings.cluster),
        text("COFFER_MODE_FLOOR", runner.mode_floor),
        text("COFFER_MOUNT_PATH", &request.mount_path),
        text("COFFER_SECRETS", &secrets(&request.secrets)),
        text("COFFER_STATE_DIR", STATE_DIR),
        text("COFFER_TOKEN_FILE", &format!("{TOKEN_DIR}/token")),
    ];
    if let Some(role) = &request.role {
        env.push(text("COFFER_ROLE", role));
    }
    env
}

// The kubelet expands $(NAME) in values; a template may contain just that.
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

fn secrets(secrets: &[SecretRequest]) -> String {
    let entries: Vec<Value> = secrets
        .iter()
        .map(|secret| {
            let mut entry = json!({"name": secret.name});
            let optional = [
                ("path", &secret.path),
                ("template", &secret.template),
                ("file", &secret.file),
                ("mode", &secret.mode),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    entry[key] = json!(value);
                }
            }
            if let Some(url) = &secret.on_change_http {
                entry["onChange"] = json!([{"http": {"post": url}}]);
            }
            entry
        })
        .collect();
    Value::from(entries).to_string()
}
