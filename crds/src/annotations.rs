//! The annotation vocabulary of injected pods: names, and one parse from a pod's annotations to what it
//! asks for. Never looks at the rest of the pod. An unknown word of ours is refused, not ignored: a
//! typing error must not start a pod without its secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Every annotation of ours starts so.
pub const PREFIX: &str = "coffer.dev/";
/// The secrets to inject, by name, separated by commas. Asking for injection is having this.
pub const INJECT: &str = "coffer.dev/inject";
/// `secret.<n>`: the path of a secret that has no DynamicSecret or StaticSecret.
pub const SECRET: &str = "coffer.dev/secret.";
/// `template.<n>`: a Go template that makes the secret one file.
pub const TEMPLATE: &str = "coffer.dev/template.";
/// `file.<n>`: the name of that file.
pub const FILE: &str = "coffer.dev/file.";
/// `file-mode.<n>`: octal mode of the secret's files.
pub const FILE_MODE: &str = "coffer.dev/file-mode.";
/// `on-change.<n>`: `http=<URL on loopback>`, called after the files have changed.
pub const ON_CHANGE: &str = "coffer.dev/on-change.";
/// Where the files go; default [`MOUNT_PATH_DEFAULT`].
pub const MOUNT_PATH: &str = "coffer.dev/mount-path";
/// The containers that see the files, separated by commas; default all.
pub const CONTAINERS: &str = "coffer.dev/containers";
/// Where the agent stands among the init containers: `first` (default) or `last`.
pub const ORDER: &str = "coffer.dev/order";
/// The role to log in with; default `<namespace>.<service account>`.
pub const ROLE: &str = "coffer.dev/role";
/// How the agent runs; `sidecar` is the one mode.
pub const MODE: &str = "coffer.dev/mode";
/// Written by the injector.
pub const STATUS: &str = "coffer.dev/status";
/// What [`STATUS`] says once it is done.
pub const STATUS_INJECTED: &str = "injected";
/// Label of injected pods, so that they can be selected.
pub const LABEL_INJECTED: &str = "coffer.dev/injected";
/// Where the files go unless said otherwise.
pub const MOUNT_PATH_DEFAULT: &str = "/coffer/secrets";

/// Words of the design that this version does not have.
const LATER: [&str; 6] = ["audience", "config-hash", "connection", "resources", "revoke", "volume"];
const NAMES_MAX: usize = 64;
/// The agent takes no longer one.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;
const PATH_BYTES_MAX: usize = 1024;

/// What a pod asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The secrets, in the order written.
    pub secrets: Vec<SecretRequest>,
    /// Where the files go.
    pub mount_path: String,
    /// The containers that see them; none means all.
    pub containers: Option<Vec<String>>,
    /// Where the agent stands.
    pub order: Order,
    /// The role to log in with, if not the usual one.
    pub role: Option<String>,
}

/// One secret a pod asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SecretRequest {
    /// Its name.
    pub name: String,
    /// Its path, if it has no object.
    pub path: Option<String>,
    /// Its template.
    pub template: Option<String>,
    /// Its one file's name.
    pub file: Option<String>,
    /// Its files' mode.
    pub mode: Option<String>,
    /// URL to call after a change.
    pub on_change_http: Option<String>,
}

/// Where the agent stands among the init containers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    /// Before all others, so that they too have the files.
    #[default]
    First,
    /// After all others, for pods whose network an init container sets up.
    Last,
}

/// Why annotations cannot be honoured: a sentence that says what to write instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AnnotationError(String);

impl fmt::Display for AnnotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AnnotationError {}

fn refuse<T>(sentence: impl Into<String>) -> Result<T, AnnotationError> {
    Err(AnnotationError(sentence.into()))
}

/// Reads what a pod asks for; `None` if it does not ask.
///
/// # Errors
/// [`AnnotationError`] names the annotation and what to write instead.
pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Option<Request>, AnnotationError> {
    let Some(inject) = annotations.get(INJECT) else { return Ok(None) };
    let names = names(INJECT, inject)?;
    if names.len() > NAMES_MAX {
        return refuse(format!(
            "{INJECT} names more than {NAMES_MAX} secrets: use fewer, with more keys each"
        ));
    }
    for name in &names {
        if !is_object_name(name) {
            return refuse(format!(
                "{INJECT}: {name:?} is not the name of a DynamicSecret or StaticSecret: use lower case letters, digits, '-' and '.'"
            ));
        }
    }
    let mut request = Request {
        secrets: names
            .iter()
            .map(|n| SecretRequest { name: n.clone(), ..SecretRequest::default() })
            .collect(),
        mount_path: MOUNT_PATH_DEFAULT.to_owned(),
        containers: None,
        order: Order::First,
        role: None,
    };
    for (key, value) in annotations.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
        apply(&mut request, key, value)?;
    }
    Ok(Some(request))
}

fn apply(request: &mut Request, key: &str, value: &str) -> Result<(), AnnotationError> {
    match key {
        INJECT | STATUS => {}
        MOUNT_PATH => {
            check_mount_path(value)?;
            request.mount_path = value.trim_end_matches('/').to_owned();
        }
        CONTAINERS => request.containers = Some(names(CONTAINERS, value)?),
        ORDER => {
            request.order = match value {
                "first" => Order::First,
                "last" => Order::Last,
                _ => return refuse(format!("{ORDER}: {value:?} is neither \"first\" nor \"last\"")),
            };
        }
        ROLE => {
            if value.is_empty() || value.len() > 512 || value.contains(['/', ' ']) {
                return refuse(format!(
                    "{ROLE}: {value:?} is not a role: write <namespace>.<service account>"
                ));
            }
            request.role = Some(value.to_owned());
        }
        MODE if value == "sidecar" => {}
        MODE => {
            return refuse(format!(
                "{MODE}: this version has \"sidecar\" only; it does not keep Jobs running, so remove the annotation"
            ));
        }
        _ => return per_secret(request, key, value),
    }
    Ok(())
}

fn per_secret(request: &mut Request, key: &str, value: &str) -> Result<(), AnnotationError> {
    let found = [SECRET, TEMPLATE, FILE, FILE_MODE, ON_CHANGE]
        .into_iter()
        .find_map(|word| key.strip_prefix(word).map(|name| (word, name)));
    let Some((word, name)) = found else { return refuse(unknown(key)) };
    let Some(secret) = request.secrets.iter_mut().find(|s| s.name == name) else {
        return refuse(format!("{key}: {name:?} is not injected: add it to {INJECT}"));
    };
    match word {
        SECRET => {
            let bad = value.is_empty()
                || value.len() > PATH_BYTES_MAX
                || value.starts_with('/')
                || value.starts_with("v1/")
                || value.split('/').any(|s| matches!(s, "" | "." | ".."));
            if bad {
                return refuse(format!(
                    "{key}: {value:?} is not a path: write it as in secret/data/shop/app, without v1/ and outer slashes"
                ));
            }
            secret.path = Some(value.to_owned());
        }
        TEMPLATE => {
            if value.len() > TEMPLATE_BYTES_MAX {
                return refuse(format!(
                    "{key}: the template is longer than {TEMPLATE_BYTES_MAX} bytes: shorten it"
                ));
            }
            secret.template = Some(value.to_owned());
        }
        FILE => {
            let bad = value.is_empty()
                || value.len() > 255
                || value.split('/').any(|s| s.is_empty() || s == "." || s.starts_with(".."));
            if bad {
                return refuse(format!(
                    "{key}: {value:?} is not a file below {}/{name}: write a relative name without ..",
                    request.mount_path
                ));
            }
            secret.file = Some(value.to_owned());
        }
        FILE_MODE => {
            let octal = matches!(value.len(), 3 | 4) && value.bytes().all(|b| (b'0'..=b'7').contains(&b));
            if !octal || (value.len() == 4 && !value.starts_with('0')) {
                return refuse(format!(
                    "{key}: {value:?} is not a mode: write it in octal, such as \"0440\""
                ));
            }
            secret.mode = Some(value.to_owned());
        }
        _ => secret.on_change_http = Some(http_of(key, value)?),
    }
    Ok(())
}

fn http_of(key: &str, value: &str) -> Result<String, AnnotationError> {
    let url = value.strip_prefix("http=").unwrap_or_default();
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let (name, rest) = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
    let port_fine = rest.is_empty() || rest.strip_prefix(':').is_some_and(digits);
    let local = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let loopback = local && port_fine;
    if !loopback || host.contains('@') {
        return refuse(format!(
            "{key}: {value:?} cannot be called: write http=http://127.0.0.1:<port>/<path>; signals and restarts are not in this version"
        ));
    }
    Ok(url.to_owned())
}

fn unknown(key: &str) -> String {
    let word = key.strip_prefix(PREFIX).unwrap_or(key);
    let stem = word.split('.').next().unwrap_or(word);
    if LATER.contains(&word) || stem == "env" {
        return format!("{key} is not in this version: remove it");
    }
    let known = "inject, secret.<name>, template.<name>, file.<name>, file-mode.<name>, on-change.<name>, mount-path, \
                 containers, order, role, mode";
    format!("{key} is not an annotation of Coffer: correct or remove it; there are {known}")
}

fn names(key: &str, value: &str) -> Result<Vec<String>, AnnotationError> {
    let names: Vec<String> = value.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return refuse(format!(
            "{key} has an empty name: write names separated by commas, or remove the annotation"
        ));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => refuse(format!("{key} names {twice:?} twice: remove one")),
        None => Ok(names),
    }
}

// A DNS subdomain, as the API server demands of an object's name.
fn is_object_name(name: &str) -> bool {
    let label = |l: &str| {
        let ends = [l.bytes().next(), l.bytes().last()];
        ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn check_mount_path(path: &str) -> Result<(), AnnotationError> {
    let trimmed = path.trim_end_matches('/');
    let shape = path.starts_with('/')
        && path.len() <= 255
        && !path.contains([':', '$'])
        && !trimmed.is_empty()
        && !trimmed.split('/').skip(1).any(|s| matches!(s, "" | "." | ".."));
    // A mount hides what is below it, so the directories a program starts from are out of bounds; nothing of its own can
    // be below the others.
    let hides = [
        "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr", "/var",
        "/var/run",
    ];
    let below =
        ["/dev", "/proc", "/run/coffer", "/run/secrets", "/sys", "/var/run/coffer", "/var/run/secrets"];
    let within =
        |dir: &str| trimmed.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !shape || hides.contains(&trimmed) || below.into_iter().any(within) {
        return refuse(format!(
            "{MOUNT_PATH}: {path:?} cannot be mounted over: write a directory of its own such as {MOUNT_PATH_DEFAULT}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect()
    }

    fn refused(pairs: &[(&str, &str)]) -> String {
        parse(&annotations(pairs)).unwrap_err().to_string()
    }

    #[test]
    fn a_pod_that_does_not_ask_gets_nothing() {
        assert_eq!(parse(&BTreeMap::new()).unwrap(), None);
        assert_eq!(parse(&annotations(&[("order", "nonsense")])).unwrap(), None);
    }

    #[test]
    fn everything_at_once() {
        let request = parse(&annotations(&[
            ("inject", "orders-db, app.config"),
            ("secret.app.config", "secret/data/shop/app"),
            ("template.app.config", "{{ toJSON . }}"),
            ("file.app.config", "conf/app.json"),
            ("file-mode.orders-db", "0400"),
            ("on-change.orders-db", "http=http://127.0.0.1:8080/-/reload"),
            ("mount-path", "/run/app-secrets/"),
            ("containers", "app,worker"),
            ("order", "last"),
            ("role", "shop.orders"),
            ("status", "injected"),
        ]))
        .unwrap()
        .unwrap();
        assert_eq!(request.secrets.len(), 2);
        assert_eq!(request.secrets[0].mode.as_deref(), Some("0400"));
        assert_eq!(request.secrets[0].on_change_http.as_deref(), Some("http://127.0.0.1:8080/-/reload"));
        assert_eq!(request.secrets[1].path.as_deref(), Some("secret/data/shop/app"));
        assert_eq!(request.secrets[1].file.as_deref(), Some("conf/app.json"));
        assert_eq!(request.mount_path, "/run/app-secrets");
        assert_eq!(request.containers, Some(vec!["app".to_owned(), "worker".to_owned()]));
        assert_eq!(request.order, Order::Last);
        assert_eq!(request.role.as_deref(), Some("shop.orders"));
    }

    #[test]
    fn refusals_say_what_to_write() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[("inject", "")], "empty name"),
            (&[("inject", "a,,b")], "empty name"),
            (&[("inject", "a,a")], "twice"),
            (&[("inject", "Orders_DB")], "lower case"),
            (&[("inject", "..")], "lower case"),
            (&[("inject", "a"), ("templte.a", "x")], "there are inject"),
            (&[("inject", "a"), ("template.b", "x")], "add it to coffer.dev/inject"),
            (&[("inject", "a"), ("env.DB", "a/b")], "not in this version"),
            (&[("inject", "a"), ("mode", "init")], "sidecar"),
            (&[("inject", "a"), ("order", "second")], "first"),
            (&[("inject", "a"), ("file-mode.a", "440x")], "octal"),
            (&[("inject", "a"), ("file-mode.a", "4755")], "octal"),
            (&[("inject", "a"), ("file.a", "../x")], "without .."),
            (&[("inject", "a"), ("secret.a", "/v1/secret")], "write it as in"),
            (&[("inject", "a"), ("secret.a", "secret/../sys")], "write it as in"),
            (&[("inject", "a"), ("on-change.a", "signal=HUP:app")], "http=http://127.0.0.1"),
            (&[("inject", "a"), ("on-change.a", "http=http://10.0.0.1/")], "http=http://127.0.0.1"),
            (&[("inject", "a"), ("on-change.a", "http=http://127.0.0.1@evil/")], "http=http://127.0.0.1"),
            (&[("inject", "a"), ("on-change.a", "http=http://[::1].evil.example/")], "http=http://127.0.0.1"),
            (&[("inject", "a"), ("on-change.a", "http=http://localhost:x/")], "http=http://127.0.0.1"),
            (&[("inject", "a"), ("mount-path", "/")], "directory of its own"),
            (&[("inject", "a"), ("mount-path", "/proc/1")], "directory of its own"),
            (&[("inject", "a"), ("mount-path", "/var/run/secrets/kubernetes.io")], "directory of its own"),
            (&[("inject", "a"), ("mount-path", "/var/run/coffer/state")], "directory of its own"),
            (&[("inject", "a"), ("mount-path", "/var/run/coffer")], "directory of its own"),
            (&[("inject", "a"), ("mount-path", "/run/")], "directory of its own"),
            (&[("inject", "a"), ("mount-path", "/var/run")], "directory of its own"),
            (&[("inject", "a"), ("template.a", &"x".repeat(65_537))], "shorten it"),
            (&[("inject", "a"), ("mount-path", "relative")], "directory of its own"),
            (&[("inject", "a"), ("mount-path", "/a/../b")], "directory of its own"),
        ];
        for (pairs, part) in table {
            let said = refused(pairs);
            assert!(said.contains(part), "{pairs:?}: {said}");
        }
    }

    #[test]
    fn usual_mount_paths_are_accepted() {
        for path in [
            "/coffer/secrets",
            "/etc/app",
            "/usr/local/secrets",
            "/vault/secrets",
            "/run/x",
            "/var/run/secrets-app",
            "/devices",
        ] {
            assert!(check_mount_path(path).is_ok(), "{path}");
        }
    }
}
