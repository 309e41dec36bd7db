//! One case for each limit that is shown: how a request of any size is made, and what is said of one too large.

use serde_json::{Value, json};

use super::Ask;

/// A row of the page, and its requests.
pub(super) struct Case {
    /// The row's first cell.
    pub(super) what: &'static str,
    pub(super) number: usize,
    /// Beyond it.
    pub(super) status: u16,
    /// What the error has in it.
    pub(super) says: &'static str,
    /// A request of this size.
    pub(super) ask: fn(usize) -> Ask,
    /// A token of this size, in the place of the real one.
    pub(super) token: Option<fn(usize) -> String>,
}

const fn case(
    what: &'static str,
    number: usize,
    status: u16,
    says: &'static str,
    ask: fn(usize) -> Ask,
) -> Case {
    Case { what, number, status, says, ask, token: None }
}

fn put(path: impl Into<String>, body: &Value) -> Ask {
    ("POST", path.into(), body.to_string().into_bytes())
}

fn get(path: impl Into<String>) -> Ask {
    ("GET", path.into(), Vec::new())
}

fn x(n: usize) -> String {
    "x".repeat(n)
}

/// `n` different texts.
fn many(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("n{i}")).collect()
}

/// A map of `n` entries.
fn map(n: usize) -> Value {
    many(n).into_iter().map(|name| (name, json!("v"))).collect::<serde_json::Map<_, _>>().into()
}

/// A body of exactly `n` bytes.
fn padded(n: usize) -> Vec<u8> {
    let mut body = br#"{"data":{}}"#.to_vec();
    body.resize(n, b' ');
    body
}

/// An object that nests `n` deep.
fn nested(n: usize) -> Vec<u8> {
    format!("{{\"data\":{}{}}}", "[".repeat(n - 1), "]".repeat(n - 1)).into_bytes()
}

/// `data` of a secret that is stored as `n` bytes.
fn secret(n: usize) -> Value {
    json!({"data": {"k": x(n - r#"{"k":""}"#.len())}})
}

fn blocks(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("10.0.{}.{}", i / 256, i % 256)).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = requests();
    cases.extend(secrets());
    cases.extend(tokens());
    cases
}

fn requests() -> Vec<Case> {
    let token =
        Case { token: Some(x), ..case("token", 8192, 400, "8192 bytes", |_| get("auth/token/lookup-self")) };
    vec![
        case("request body", 1 << 20, 413, "1048576 bytes", |n| ("POST", "secret/data/a".into(), padded(n))),
        case("nesting of a JSON body", 32, 400, "32 levels", |n| {
            ("POST", "auth/token/create".into(), nested(n))
        }),
        case("path, decoded", 1024, 400, "1024 bytes", |n| get(format!("secret/data/{}", x(n - 12)))),
        case("segments of a path", 64, 400, "64 segments", |n| get(vec!["secret"; n].join("/"))),
        case("query", 8192, 400, "8192 bytes", |n| get(format!("secret/data/a?q={}", x(n - 2)))),
        token,
        case("wrap TTL, and every other duration", 100, 400, "duration", |n| {
            put(
                "auth/token/create",
                &json!({"policies": ["default"], "ttl": (n * 366 * 24 * 3600).to_string()}),
            )
        }),
    ]
}

fn secrets() -> Vec<Case> {
    vec![
        case("secret of `kv`", 512 << 10, 413, "524288", |n| put("secret/data/a", &secret(n))),
        case("numbers in `versions` of delete, undelete, destroy", 1000, 400, "1000", |n| {
            put("secret/delete/there", &json!({"versions": (1..=n).collect::<Vec<_>>()}))
        }),
        case("entries of `custom_metadata`", 64, 400, "64", |n| {
            put("secret/metadata/a", &json!({"custom_metadata": map(n)}))
        }),
        case("key of `custom_metadata`", 128, 400, "128", |n| {
            put("secret/metadata/a", &json!({"custom_metadata": {x(n): "v"}}))
        }),
        case("value of `custom_metadata`", 512, 400, "512", |n| {
            put("secret/metadata/a", &json!({"custom_metadata": {"k": x(n)}}))
        }),
        case("cubbyhole entry", 512 << 10, 413, "524288", |n| {
            put("cubbyhole/a", &json!({"k": x(n - 1 - r#"{"k":""}"#.len())}))
        }),
    ]
}

fn tokens() -> Vec<Case> {
    vec![
        case("paths of a policy", 10_000, 400, "10000 paths", |n| {
            let rules: String = (0..n).map(|i| format!("path \"p{i}\" {{ policy = \"read\" }}\n")).collect();
            put("sys/policies/acl/large", &json!({"policy": rules}))
        }),
        case("name of a policy", 512, 400, "512", |n| {
            put(format!("sys/policies/acl/{}", x(n)), &json!({"policy": "path \"a\" { policy = \"read\" }"}))
        }),
        case("policies of a token", 256, 413, "256", |n| {
            put("auth/token/create", &json!({"policies": many(n)}))
        }),
        case("entries of a token's `meta`", 64, 413, "64", |n| {
            put("auth/token/create", &json!({"meta": map(n)}))
        }),
        case("key or value of a token's `meta`", 512, 413, "512", |n| {
            put("auth/token/create", &json!({"meta": {"k": x(n)}}))
        }),
        case("address blocks of a token or secret id", 256, 400, "256", |n| {
            put("auth/token/roles/r", &json!({"token_bound_cidrs": blocks(n)}))
        }),
        case("entries of any list of texts", 1024, 413, "1024", |n| {
            put("auth/token/roles/r", &json!({"allowed_policies_glob": many(n)}))
        }),
        case("paths of one question about capabilities", 256, 413, "256", |n| {
            put("sys/capabilities-self", &json!({"paths": many(n)}))
        }),
        case("name of a role, user or entity", 512, 400, "512", |n| {
            put("identity/entity", &json!({"name": x(n)}))
        }),
        case("password (bcrypt looks at no more)", 72, 400, "72", |n| {
            put("auth/userpass/users/u", &json!({"password": x(n)}))
        }),
        case("description of a mount", 2048, 413, "2048", |n| {
            put("sys/mounts/secret/tune", &json!({"description": x(n)}))
        }),
    ]
}
