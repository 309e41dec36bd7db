//! From a pod and the settings to a patch, or to a refusal that says what to write instead. Pure, and
//! idempotent: an injected pod gets an empty patch. Every operation only adds, so that fields this
//! version's types do not know survive.

use crate::runner::runner;
use crate::settings::Settings;
use crate::sidecar;
use coffer_crds::annotations::{self, Order, Request};
use json_patch::Patch;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::{Value, json};
use thiserror::Error;

/// Linux starts no program with an environment variable of 128 KiB or more, and says no more than "argument list too long".
const SECRETS_BYTES_MAX: usize = 120 << 10;

/// A patch, and what the pod's author should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Operations on the pod; none if there is nothing to do.
    pub patch: Patch,
    /// Shown by `kubectl`.
    pub warnings: Vec<String>,
}

/// Why a pod cannot be injected: a sentence for its author.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("coffer: {0}")]
pub struct Refusal(String);

/// Prefix of the annotations of Vault's own injector.
const FOREIGN: &str = "vault.hashicorp.com/";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Injects the agent into a pod that asks for secrets.
///
/// # Errors
/// [`Refusal`] says what to change.
pub fn patch(pod: &Pod, settings: &Settings) -> Result<Outcome, Refusal> {
    let nothing = || Outcome { patch: Patch(Vec::new()), warnings: Vec::new() };
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let asked = annotations::parse(&annotations).map_err(|e| Refusal(e.to_string()))?;
    let (Some(request), Some(spec)) = (asked, &pod.spec) else { return Ok(nothing()) };
    // A static pod has no ServiceAccount; its mirror is only its image at the API server.
    if annotations.contains_key(MIRROR) {
        return Ok(nothing());
    }
    if has_our_container(spec) {
        let says_so = annotations.get(annotations::STATUS).is_some_and(|s| s == annotations::STATUS_INJECTED);
        // Somebody's own container of that name must not start the pod without its secrets.
        return if says_so && is_injected(spec) {
            Ok(nothing())
        } else {
            Err(taken("container", sidecar::CONTAINER))
        };
    }
    refuse_unfit(spec)?;
    if sidecar::secrets_bytes(&request) > SECRETS_BYTES_MAX {
        return Err(Refusal(format!(
            "the annotations come to more than {SECRETS_BYTES_MAX} bytes for the agent: move templates into the DynamicSecret"
        )));
    }
    let readers = readers(spec, &request)?;
    let containers: Vec<&Container> = readers.iter().map(|r| r.container).collect();
    let runner = runner(spec, &containers);
    let mut ops = Vec::new();
    mark(pod, &mut ops);
    for volume in sidecar::volumes(settings) {
        let present =
            spec.volumes.as_ref().is_some_and(|v| !v.is_empty()) || ops_touch(&ops, "/spec/volumes");
        append(&mut ops, "/spec/volumes", present, volume);
    }
    for reader in &readers {
        let present = reader.container.volume_mounts.as_ref().is_some_and(|m| !m.is_empty());
        append(
            &mut ops,
            &format!("{}/volumeMounts", reader.pointer),
            present,
            sidecar::reader_mount(&request),
        );
    }
    // Last, because it shifts the init containers' positions.
    let agent = sidecar::container(&request, settings, &runner);
    match (spec.init_containers.as_ref().is_some_and(|c| !c.is_empty()), request.order) {
        (true, Order::First) => ops.push(add("/spec/initContainers/0", agent)),
        (present, _) => append(&mut ops, "/spec/initContainers", present, agent),
    }
    let patch = serde_json::from_value(Value::from(ops)).map_err(|e| Refusal(format!("internal: {e}")))?;
    Ok(Outcome { patch, warnings: warnings(pod, spec, &request, runner.warning) })
}

fn warnings(pod: &Pod, spec: &PodSpec, request: &Request, runner: Option<String>) -> Vec<String> {
    let calls = request.secrets.iter().any(|s| s.on_change_http.is_some());
    let on_host = (spec.host_network == Some(true) && calls).then(|| {
        "coffer: the pod uses the node's network, so on-change http reaches whatever listens on the node's loopback"
            .to_owned()
    });
    let shared = (spec.share_process_namespace == Some(true) || spec.host_pid == Some(true)).then(|| {
        "coffer: the pod shares its process namespace, so a container that runs as the agent's user or as root can reach the \
         agent's token through /proc"
            .to_owned()
    });
    let foreign = pod
        .metadata
        .annotations
        .iter()
        .flatten()
        .map(|(key, _)| key)
        .find(|key| key.starts_with(FOREIGN))
        .map(|key| {
            format!(
                "coffer: {key} and the like are not read in this version; say it with coffer.dev annotations"
            )
        });
    runner.into_iter().chain(on_host).chain(shared).chain(foreign).collect()
}

fn taken(what: &str, name: &str) -> Refusal {
    Refusal(format!("the {what} name {name:?} is the injector's: rename yours"))
}

fn is_agent(container: &Container) -> bool {
    container.name == sidecar::CONTAINER
}

fn has_our_container(spec: &PodSpec) -> bool {
    spec.containers.iter().any(is_agent) || spec.init_containers.iter().flatten().any(is_agent)
}

fn is_injected(spec: &PodSpec) -> bool {
    let there = |name: &&str| spec.volumes.iter().flatten().any(|volume| volume.name == **name);
    spec.init_containers.iter().flatten().any(is_agent) && sidecar::VOLUMES.iter().all(there)
}

fn refuse_unfit(spec: &PodSpec) -> Result<(), Refusal> {
    let selected = spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") || selected.is_some_and(|os| os == "windows") {
        return Err(Refusal(
            "Windows pods are not supported: remove coffer.dev/inject, or run the pod on Linux".to_owned(),
        ));
    }
    let ours = sidecar::VOLUMES;
    if let Some(volume) = spec.volumes.iter().flatten().find(|v| ours.contains(&v.name.as_str())) {
        return Err(taken("volume", &volume.name));
    }
    // A mount may name a volume that is only about to be added: the agent's token would be in the application's hands.
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let mounts = container.volume_mounts.iter().flatten();
        if let Some(mount) = mounts.into_iter().find(|m| ours.contains(&m.name.as_str())) {
            return Err(Refusal(format!(
                "container {:?} mounts {:?}, which is the injector's: remove that mount, and choose where the files go with {} and who sees them with {}",
                container.name,
                mount.name,
                annotations::MOUNT_PATH,
                annotations::CONTAINERS
            )));
        }
    }
    Ok(())
}

struct Reader<'a> {
    container: &'a Container,
    pointer: String,
}

// The containers that see the files: the chosen ones, among them init containers that start after the agent.
fn readers<'a>(spec: &'a PodSpec, request: &Request) -> Result<Vec<Reader<'a>>, Refusal> {
    let init = match request.order {
        Order::First => spec.init_containers.as_deref().unwrap_or_default(),
        Order::Last => &[],
    };
    let at = |list: &str, i: usize| format!("/spec/{list}/{i}");
    let all: Vec<Reader<'a>> = init
        .iter()
        .enumerate()
        .map(|(i, container)| Reader { container, pointer: at("initContainers", i) })
        .chain(
            spec.containers
                .iter()
                .enumerate()
                .map(|(i, container)| Reader { container, pointer: at("containers", i) }),
        )
        .collect();
    if let Some(missing) =
        request.containers.iter().flatten().find(|name| all.iter().all(|r| r.container.name != **name))
    {
        let there: Vec<&str> = all.iter().map(|r| r.container.name.as_str()).collect();
        return Err(Refusal(format!(
            "{} names {missing:?}, which is no container that starts after the agent: there are {}",
            annotations::CONTAINERS,
            there.join(", ")
        )));
    }
    let chosen =
        |r: &Reader<'_>| request.containers.as_ref().is_none_or(|names| names.contains(&r.container.name));
    let readers: Vec<Reader<'a>> = all.into_iter().filter(chosen).collect();
    for reader in &readers {
        let mounts = reader.container.volume_mounts.iter().flatten();
        if mounts.into_iter().any(|m| m.mount_path.trim_end_matches('/') == request.mount_path) {
            return Err(Refusal(format!(
                "container {:?} already mounts something at {}: set {} to another directory",
                reader.container.name,
                request.mount_path,
                annotations::MOUNT_PATH
            )));
        }
    }
    Ok(readers)
}

fn mark(pod: &Pod, ops: &mut Vec<Value>) {
    let status = pointer_key(annotations::STATUS);
    ops.push(add(&format!("/metadata/annotations/{status}"), json!(annotations::STATUS_INJECTED)));
    if pod.metadata.labels.as_ref().is_some_and(|l| !l.is_empty()) {
        let label = pointer_key(annotations::LABEL_INJECTED);
        ops.push(add(&format!("/metadata/labels/{label}"), json!("true")));
    } else {
        ops.push(add("/metadata/labels", json!({annotations::LABEL_INJECTED: "true"})));
    }
}

fn add(path: &str, value: Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
}

fn append(ops: &mut Vec<Value>, list: &str, present: bool, value: Value) {
    if present {
        ops.push(add(&format!("{list}/-"), value));
    } else {
        ops.push(add(list, json!([value])));
    }
}

fn ops_touch(ops: &[Value], path: &str) -> bool {
    ops.iter().any(|op| op["path"] == path)
}

// A slash in a JSON pointer's key is written ~1.
fn pointer_key(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
