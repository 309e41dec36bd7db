//! Fuzz targets of what comes over HTTP: request line, headers, bodies. Nothing is decided here, so what must hold is that
//! there is one reading of each request, within its limits.

use std::net::IpAddr;

use coffer_core::path::VaultPath;
use coffer_core::time::MAX_DURATION;
use coffer_core::token::MAX_TOKEN_BYTES;
use coffer_fuzz::{Target, kind, text};
use coffer_vault::Operation;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::{Map, Value};

use crate::forwarded::TrustedProxies;
use crate::json::{self, DEPTH_MAX};
use crate::parse;

/// A method, a URL's path and query, then headers, as lines.
#[test]
fn a_request_has_one_path_and_one_operation() {
    let words = [
        "GET",
        "LIST",
        "SCAN",
        "PATCH",
        "DELETE",
        "/v1/",
        "//",
        "?list=true",
        "&after=",
        "%2e",
        "%2F",
        "sys/",
        "x-vault-token: ",
        "authorization: Bearer ",
        "x-vault-wrap-ttl: ",
        "x-vault-namespace: root",
        "content-type: application/merge-patch+json",
        "content-length: ",
        "\n",
    ];
    Target::new("request").words(&words).run(|input| {
        let given = text(input);
        let mut lines = given.lines();
        let (method, target) = lines.next().unwrap_or_default().split_once(' ').unwrap_or(("GET", "/"));
        let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), target.parse::<Uri>()) else {
            return "no request".into();
        };
        let headers = headers(lines);
        if let Err(why) = parse::declared_size(&headers, 1 << 20) {
            return kind(&why);
        }
        let head =
            parse::path(&uri).and_then(|path| Ok((parse::head(&method, &path, &uri, &headers)?, path)));
        let (head, path) = match head {
            Ok(head) => head,
            Err(why) => {
                assert!(why.to_string().len() < 512, "a refusal is short");
                return kind(&why);
            }
        };
        // What policies look at is what is routed, and it is canonical.
        let canonical = VaultPath::parse(&head.path).unwrap();
        assert_eq!(canonical.trimmed(), path.trimmed());
        let listing = matches!(head.operation, Operation::List | Operation::Scan);
        assert!(listing || !head.path.ends_with('/'));
        assert!(head.wrap_ttl.is_none_or(|ttl| !ttl.is_zero() && ttl <= MAX_DURATION));
        assert!(head.token.as_ref().is_none_or(|token| token.expose().len() <= MAX_TOKEN_BYTES));
        let wants_merge = head.operation == Operation::Patch;
        assert!(!wants_merge || headers.get("content-type").is_some());
        let query: usize = head.query.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(
            query <= 3 * uri.query().map_or(0, str::len),
            "at most each byte becomes a replacement character"
        );
        format!(
            "{:?} {} {} {}",
            head.operation,
            head.token.is_some(),
            head.wrap_ttl.is_some(),
            head.query.len().min(3)
        )
    });
}

fn headers<'a>(lines: impl Iterator<Item = &'a str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")).take(32) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    headers
}

#[test]
fn a_json_body_is_an_object_of_bounded_depth_and_reads_back() {
    let words =
        ["{", "}", "[", "]", "\"", "\\\"", "\\u0000", "\\ud800", "null", ":", ",", "1e999", "\u{feff}"];
    Target::new("json-body").words(&words).run(|input| {
        let (object, exact) = match json::object(input) {
            Ok(read) => read,
            Err(why) => return kind(&why),
        };
        let value = Value::Object(object);
        assert!(depth(&value) <= DEPTH_MAX);
        let text = exact.as_ref().map_or_else(
            || value.to_string(),
            |exact| {
                let mut bytes = Vec::new();
                exact.write(&mut bytes).unwrap();
                String::from_utf8(bytes).unwrap()
            },
        );
        assert_eq!(
            json::object(text.as_bytes()).map(|again| Value::Object(again.0)).unwrap(),
            value,
            "{text}"
        );
        format!("{} {}", depth(&value), value.as_object().map_or(0, Map::len).min(9))
    });
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn a_form_loses_nothing_and_reads_back() {
    let words = ["&", "=", "%", "%26", "%3d", "%00", "+", "%2b", "a=1", ";", "%ff", "%ef%bf%bd", "[]"];
    Target::new("form").words(&words).run(|input| {
        let fields = match parse::form(input) {
            Ok(fields) => fields,
            Err(why) => return kind(&why),
        };
        let mut again = form_urlencoded::Serializer::new(String::new());
        let mut pairs = 0;
        for (key, value) in &fields {
            let one = std::slice::from_ref(value);
            for value in value.as_array().map_or(one, Vec::as_slice) {
                again.append_pair(key, value.as_str().unwrap());
                pairs += 1;
            }
        }
        let again = again.finish();
        assert_eq!(parse::form(again.as_bytes()), Ok(fields.clone()));
        assert!(pairs <= 1 + input.iter().filter(|c| **c == b'&').count());
        format!("{} {}", fields.len().min(9), fields.values().any(Value::is_array))
    });
}

/// The peer's address, then values of the header, as lines. A client behind a trusted proxy cannot choose who it is.
#[test]
fn the_client_is_who_the_proxy_says_and_not_who_the_client_says() {
    let words =
        ["10.0.0.1", ", ", "203.0.113.9", "::1", "::ffff:10.0.0.1", "[::1]:80", "x", "\n", "127.0.0.1"];
    Target::new("forwarded-for").words(&words).run(|input| {
        let given = text(input);
        let mut lines = given.lines();
        let Ok(peer) = lines.next().unwrap_or_default().trim().parse::<IpAddr>() else {
            return "no peer".into();
        };
        let mut headers = HeaderMap::new();
        let values: Vec<HeaderValue> =
            lines.filter_map(|line| HeaderValue::from_bytes(line.as_bytes()).ok()).collect();
        for value in values.iter().take(80) {
            headers.append("x-forwarded-for", value.clone());
        }
        let mut spoofed = HeaderMap::new();
        spoofed.append("x-forwarded-for", HeaderValue::from_static("198.51.100.66, 198.51.100.67"));
        headers.get_all("x-forwarded-for").iter().for_each(|value| {
            spoofed.append("x-forwarded-for", value.clone());
        });
        let mut answer = String::new();
        for hop_skips in [0, 1] {
            let proxies = TrustedProxies {
                authorized: vec!["10.0.0.0/8".parse().unwrap()],
                hop_skips,
                reject_not_authorized: false,
                reject_not_present: false,
            };
            let client = proxies.client(peer, &headers);
            if !proxies.trusts(peer) {
                assert_eq!(client, Ok(peer));
            } else if let Ok(client) = client
                && !headers.is_empty()
            {
                let stated = |part: &str| part.trim().parse() == Ok(client);
                assert!(values.iter().any(|v| v.to_str().is_ok_and(|v| v.split(',').any(stated))));
                let again = proxies.client(peer, &spoofed);
                assert!(again == Ok(client) || again == Err("malformed x-forwarded-for header"), "{again:?}");
            }
            answer.push_str(&client.map_or_else(str::to_owned, |ip| ip.is_ipv4().to_string()));
        }
        answer
    });
}
