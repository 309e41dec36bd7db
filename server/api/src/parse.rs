//! From an HTTP request to what the vault understands: operation, canonical path, token, query, body.
//!
//! Everything is bounded and nothing is looked up: whether a path exists or a token is alive is the vault's
//! business. Order: size, path, headers, body.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::Query;
use coffer_core::path::{PathError, VaultPath};
use coffer_core::time::parse_duration;
use coffer_core::token::{MAX_TOKEN_BYTES, Token};
use coffer_vault::Operation;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, Uri};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::json::BodyError;

const MERGE_PATCH: &str = "application/merge-patch+json";
/// How much of a content type that is not taken is repeated.
const TYPE_CHARS_MAX: usize = 64;
const QUERY_BYTES_MAX: usize = 8 * 1024;

/// Why a request did not get as far as the vault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the request was not complete within {0} s")]
    Slow(u64),
    #[error("the request was cut off")]
    CutOff,
    #[error("too many request bodies are being read; try again")]
    Crowded,
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    Path(#[from] PathError),
    #[error("nothing is served here: paths begin with /v1/")]
    NoRoute,
    #[error("cannot write to a path ending in '/'")]
    SlashWrite,
    #[error("unsupported method")]
    Method,
    #[error("failed to parse form input")]
    Form,
    #[error("PATCH requires Content-Type of {MERGE_PATCH}, provided {0}")]
    PatchType(String),
    #[error("the query is malformed or longer than {QUERY_BYTES_MAX} bytes")]
    Query,
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    LongToken,
    #[error("permission denied")]
    Token,
    #[error("namespace not found")]
    Namespace,
    #[error("error parsing X-Vault-Wrap-TTL header: {0}")]
    Wrapping(&'static str),
    #[error("{0}")]
    Forwarded(&'static str),
    #[error("{0}")]
    Body(#[from] BodyError),
    #[error("invalid value for {0:?}: expected an HTTP status from 200 to 599")]
    Code(&'static str),
}

/// What is said about a request before its body is read.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) operation: Operation,
    pub(crate) path: String,
    pub(crate) token: Option<Token>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) wrap_ttl: Option<Duration>,
}

/// The canonical path below `/v1/`.
pub(crate) fn path(uri: &Uri) -> Result<VaultPath, Unfit> {
    let below = uri.path().strip_prefix("/v1/").ok_or(Unfit::NoRoute)?;
    if below.is_empty() {
        return Err(Unfit::NoRoute);
    }
    // A leading slash would be forgiven by the parser, but here it is a second spelling (`/v1//sys`).
    if below.starts_with('/') {
        return Err(Unfit::Path(PathError::EmptySegment));
    }
    Ok(VaultPath::parse_encoded(below)?)
}

/// Refuses a body that says of itself that it is too large.
pub(crate) fn declared_size(headers: &HeaderMap, max: usize) -> Result<(), Unfit> {
    let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(()) };
    let length = length.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    match length {
        Some(length) if length <= max as u64 => Ok(()),
        _ => Err(Unfit::TooLarge(max)),
    }
}

/// Everything but the body.
pub(crate) fn head(method: &Method, path: &VaultPath, uri: &Uri, headers: &HeaderMap) -> Result<Head, Unfit> {
    let query = query(uri)?;
    let operation = operation(method, &query)?;
    content_type(operation, headers)?;
    namespace(headers)?;
    let wrap_ttl = wrapping(headers)?;
    let path = match operation {
        Operation::List | Operation::Scan => path.as_str().to_owned(),
        Operation::Create | Operation::Update | Operation::Patch
            if path.is_dir() && !path.as_str().starts_with("sys/") =>
        {
            return Err(Unfit::SlashWrite);
        }
        _ => path.trimmed().to_owned(),
    };
    Ok(Head { operation, path, token: token(headers)?, query, wrap_ttl })
}

/// The query's pairs; of a key that occurs twice the first counts, as in Go's clients.
pub(crate) fn query(uri: &Uri) -> Result<BTreeMap<String, String>, Unfit> {
    if uri.query().is_some_and(|text| text.len() > QUERY_BYTES_MAX) {
        return Err(Unfit::Query);
    }
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| Unfit::Query)?;
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        map.entry(key).or_insert(value);
    }
    Ok(map)
}

fn operation(method: &Method, query: &BTreeMap<String, String>) -> Result<Operation, Unfit> {
    let asked = |key: &str| query.get(key).is_some_and(|value| matches!(value.as_str(), "true" | "1" | "t"));
    match method.as_str() {
        "GET" if asked("list") => Ok(Operation::List),
        "GET" if asked("scan") => Ok(Operation::Scan),
        "GET" => Ok(Operation::Read),
        "LIST" => Ok(Operation::List),
        "SCAN" => Ok(Operation::Scan),
        "POST" | "PUT" => Ok(Operation::Update),
        "PATCH" => Ok(Operation::Patch),
        "DELETE" => Ok(Operation::Delete),
        _ => Err(Unfit::Method),
    }
}

/// A merge patch must be called one. Everything else is read as what it looks like, as in Vault: Go's clients send no
/// type, and curl calls everything a form.
fn content_type(operation: Operation, headers: &HeaderMap) -> Result<(), Unfit> {
    if operation != Operation::Patch {
        return Ok(());
    }
    match given_type(headers) {
        Some(given) if given == MERGE_PATCH => Ok(()),
        given => Err(Unfit::PatchType(given.unwrap_or_default().chars().take(TYPE_CHARS_MAX).collect())),
    }
}

fn given_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase())
}

/// Whether a body may be a form: it says so, and it is no JSON object.
pub(crate) fn is_form(headers: &HeaderMap, body: &[u8]) -> bool {
    let said = given_type(headers).is_some_and(|given| given == "application/x-www-form-urlencoded");
    said && !body.trim_ascii_start().starts_with(b"{")
}

/// A form's fields; one that occurs several times is a list.
pub(crate) fn form(body: &[u8]) -> Result<Map<String, Value>, Unfit> {
    let mut fields = Map::new();
    for (key, value) in form_urlencoded::parse(body.trim_ascii()) {
        let (key, value) = (key.into_owned(), value.into_owned());
        // The decoder puts this character where bytes are no UTF-8: a secret must not be changed silently.
        if key.contains(char::REPLACEMENT_CHARACTER) || value.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Unfit::Form);
        }
        match fields.get_mut(&key) {
            None => drop(fields.insert(key, value.into())),
            Some(Value::Array(values)) => values.push(value.into()),
            Some(first) => {
                let list = Value::Array(vec![first.take(), value.into()]);
                *first = list;
            }
        }
    }
    Ok(fields)
}

/// Names the mount and role that a ServiceAccount's token is used under as it is: `<mount>/<role>`.
const ROLE_HEADER: &str = "x-coffer-role";

/// `X-Vault-Token`, else `Authorization: Bearer`. What cannot be a token is refused as an unknown one is. With
/// `X-Coffer-Role` it is a ServiceAccount's token, and both together are the credential.
pub(crate) fn token(headers: &HeaderMap) -> Result<Option<Token>, Unfit> {
    let bytes = match headers.get("x-vault-token") {
        Some(value) if !value.is_empty() => value.as_bytes(),
        _ => match headers.get(AUTHORIZATION).map(|value| value.as_bytes()) {
            Some(value) if value.len() > 7 && value[..7].eq_ignore_ascii_case(b"bearer ") => {
                value[7..].trim_ascii()
            }
            _ => return Ok(None),
        },
    };
    if bytes.len() > MAX_TOKEN_BYTES {
        return Err(Unfit::LongToken);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Unfit::Token)?;
    let Some(role) = headers.get(ROLE_HEADER).filter(|role| !role.is_empty()) else {
        return Token::parse(text).map(Some).map_err(|_| Unfit::Token);
    };
    let role = role.to_str().ok().filter(|role| !role.contains(':')).ok_or(Unfit::Token)?;
    let both = Zeroizing::new(format!("k8s:{}:{text}", role.trim_matches('/')));
    let unfit = if both.len() > MAX_TOKEN_BYTES { Unfit::LongToken } else { Unfit::Token };
    Token::parse(&both).map(Some).map_err(|_| unfit)
}

fn namespace(headers: &HeaderMap) -> Result<(), Unfit> {
    match headers.get("x-vault-namespace").map(|value| value.as_bytes()) {
        None | Some(b"" | b"/" | b"root" | b"root/") => Ok(()),
        Some(_) => Err(Unfit::Namespace),
    }
}

/// For how long the reply is to be wrapped; none, or nothing, for not at all. What cannot be read is refused: answering
/// without the wrapping that was asked for would hand out what should be sealed.
fn wrapping(headers: &HeaderMap) -> Result<Option<Duration>, Unfit> {
    let Some(ttl) = headers.get("x-vault-wrap-ttl") else { return Ok(None) };
    let text = ttl.to_str().map_err(|_| Unfit::Wrapping("invalid duration"))?.trim();
    if text.starts_with('-') {
        return Err(Unfit::Wrapping("requested wrap ttl cannot be negative"));
    }
    let ttl = parse_duration(text).map_err(|_| Unfit::Wrapping("invalid duration"))?;
    Ok(Some(ttl).filter(|ttl| !ttl.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Result<Head, Unfit> {
        let uri: Uri = uri.parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let path = path(&uri)?;
        head(&Method::from_bytes(method.as_bytes()).unwrap(), &path, &uri, &map)
    }

    #[test]
    fn methods_become_operations() {
        for (method, uri, wanted) in [
            ("GET", "/v1/secret/data/a", Operation::Read),
            ("LIST", "/v1/secret/metadata", Operation::List),
            ("GET", "/v1/secret/metadata?list=true", Operation::List),
            ("SCAN", "/v1/secret/metadata", Operation::Scan),
            ("GET", "/v1/secret/metadata?scan=true", Operation::Scan),
            ("GET", "/v1/secret/metadata?list=false", Operation::Read),
            ("POST", "/v1/secret/data/a", Operation::Update),
            ("PUT", "/v1/secret/data/a", Operation::Update),
            ("DELETE", "/v1/secret/data/a", Operation::Delete),
        ] {
            assert_eq!(parse(method, uri, &[]).unwrap().operation, wanted, "{method} {uri}");
        }
        for method in ["HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
            assert_eq!(parse(method, "/v1/a", &[]).unwrap_err(), Unfit::Method, "{method}");
        }
    }

    #[test]
    fn patch_wants_its_content_type() {
        let merge = [("content-type", "application/merge-patch+json; charset=utf-8")];
        assert_eq!(parse("PATCH", "/v1/a/b", &merge).unwrap().operation, Operation::Patch);
        for other in [&[][..], &[("content-type", "application/json")][..]] {
            assert!(matches!(parse("PATCH", "/v1/a/b", other), Err(Unfit::PatchType(_))));
        }
    }

    #[test]
    fn writes_take_json_under_the_names_clients_give_it() {
        for good in [
            "application/json",
            "Application/JSON;charset=utf-8",
            "application/x-www-form-urlencoded",
            "text/plain",
        ] {
            assert!(parse("POST", "/v1/a/b", &[("content-type", good)]).is_ok(), "{good}");
        }
    }

    #[test]
    fn forms_are_read_when_they_say_so() {
        let typed = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            headers
        };
        let form_type = typed("application/x-www-form-urlencoded; charset=utf-8");
        assert!(is_form(&form_type, b"a=b"));
        assert!(!is_form(&form_type, b" {\"a\": 1}"), "what curl sends");
        assert!(!is_form(&typed("text/plain"), b"a=b"));
        let fields = form(b"a=b%20c&d=1&d=2&d=3&e=").unwrap();
        assert_eq!(Value::Object(fields), serde_json::json!({"a": "b c", "d": ["1", "2", "3"], "e": ""}));
        let fields = form(b"password=pa#ss w\"rd<&policies=x").unwrap();
        assert_eq!(Value::Object(fields), serde_json::json!({"password": "pa#ss w\"rd<", "policies": "x"}));
        assert_eq!(form(b"a=%ff").unwrap_err(), Unfit::Form);
    }

    #[test]
    fn paths_have_one_spelling() {
        assert_eq!(parse("GET", "/v1/secret/a%20b/", &[]).unwrap().path, "secret/a b");
        assert_eq!(parse("LIST", "/v1/secret/a/", &[]).unwrap().path, "secret/a/");
        assert_eq!(parse("POST", "/v1/secret/a/", &[]).unwrap_err(), Unfit::SlashWrite);
        assert_eq!(parse("POST", "/v1/sys/mounts/a/", &[]).unwrap().path, "sys/mounts/a");
        for bad in ["/v1//sys/health", "/v1/a//b", "/v1/a/../b", "/v1/a/%2e%2e/b", "/v1/a%00", "/v1/%ff"] {
            assert!(matches!(parse("GET", bad, &[]), Err(Unfit::Path(_))), "{bad}");
        }
        for nowhere in ["/", "/v1", "/v1/", "/ui/", "/v2/sys/health", "/V1/sys/health"] {
            assert_eq!(parse("GET", nowhere, &[]).unwrap_err(), Unfit::NoRoute, "{nowhere}");
        }
    }

    #[test]
    fn tokens_come_from_two_headers() {
        let token = |headers: &[(&'static str, &str)]| parse("GET", "/v1/a", headers).map(|head| head.token);
        let text = |headers: &[(&'static str, &str)]| token(headers).unwrap().map(|t| t.expose().to_owned());
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[("x-vault-token", "")]), None);
        assert_eq!(text(&[("x-vault-token", "s.a")]).as_deref(), Some("s.a"));
        assert_eq!(text(&[("authorization", "Bearer s.b")]).as_deref(), Some("s.b"));
        assert_eq!(text(&[("authorization", "bearer s.b")]).as_deref(), Some("s.b"));
        assert_eq!(text(&[("authorization", "Basic dTpw")]), None);
        let both = [("authorization", "Bearer s.b"), ("x-vault-token", "s.a")];
        assert_eq!(text(&both).as_deref(), Some("s.a"));
        assert_eq!(token(&[("x-vault-token", "a b")]).unwrap_err(), Unfit::Token);
        assert_eq!(token(&[("x-vault-token", &"x".repeat(8193))]).unwrap_err(), Unfit::LongToken);
        assert!(token(&[("x-vault-token", &"x".repeat(8192))]).is_ok());
        // A ServiceAccount's own token, and the role that it is used under.
        let direct = |role: &'static str| [("authorization", "Bearer e.e.e"), ("x-coffer-role", role)];
        assert_eq!(text(&direct("kubernetes/a/r")).as_deref(), Some("k8s:kubernetes/a/r:e.e.e"));
        assert_eq!(text(&direct("")).as_deref(), Some("e.e.e"));
        assert_eq!(text(&[("x-coffer-role", "kubernetes/a/r")]), None);
        for odd in ["a:b", "a b"] {
            assert_eq!(token(&direct(odd)).unwrap_err(), Unfit::Token, "{odd}");
        }
        let long = "x".repeat(8190);
        assert_eq!(
            token(&[("x-vault-token", &long), ("x-coffer-role", "a/b")]).unwrap_err(),
            Unfit::LongToken
        );
    }

    #[test]
    fn what_this_release_does_not_do_is_refused_rather_than_ignored() {
        assert_eq!(parse("GET", "/v1/a", &[("x-vault-namespace", "team")]).unwrap_err(), Unfit::Namespace);
        assert!(parse("GET", "/v1/a", &[("x-vault-namespace", "root")]).is_ok());
        assert!(parse("GET", "/v1/a", &[("x-vault-request", "true")]).is_ok());
    }

    #[test]
    fn wrapping_takes_seconds_or_a_duration() {
        let ttl = |text: &str| parse("GET", "/v1/a", &[("x-vault-wrap-ttl", text)]).map(|head| head.wrap_ttl);
        for (text, seconds) in [("60", 60), ("60s", 60), ("2m", 120), ("1.5h", 5400)] {
            assert_eq!(ttl(text).unwrap(), Some(Duration::from_secs(seconds)), "{text}");
        }
        for none in ["", "0", "0s"] {
            assert_eq!(ttl(none).unwrap(), None, "{none:?}");
        }
        for bad in ["x", "-5", "-5s", "60 apples", "99999999999999999999"] {
            assert!(matches!(ttl(bad), Err(Unfit::Wrapping(_))), "{bad}");
        }
    }

    #[test]
    fn queries_are_decoded_and_bounded() {
        let head = parse("GET", "/v1/a?version=2&x=a%20b&version=3", &[]).unwrap();
        assert_eq!(head.query["version"], "2");
        assert_eq!(head.query["x"], "a b");
        let long = format!("/v1/a?x={}", "y".repeat(9000));
        assert_eq!(parse("GET", &long, &[]).unwrap_err(), Unfit::Query);
    }

    #[test]
    fn declared_sizes() {
        let size = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_LENGTH, text.parse().unwrap());
            declared_size(&headers, 10)
        };
        assert!(size("10").is_ok());
        for bad in ["11", "-1", "99999999999999999999999", "ten"] {
            assert_eq!(size(bad), Err(Unfit::TooLarge(10)), "{bad}");
        }
        assert!(declared_size(&HeaderMap::new(), 10).is_ok());
    }
}
