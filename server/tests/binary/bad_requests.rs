//! Requests that are too large, too deep, or nonsense: each is refused with a clear sentence, and nothing comes of it.

use std::io::Write;

use crate::ready::{Raw, Ready, connect};
use serde_json::json;

/// The limit of a body, in bytes.
const BODY_MAX: usize = 1 << 20;

#[test]
fn a_body_over_the_limit_is_refused_declared_or_not() {
    let ready = Ready::new();
    let words = format!("the request body is larger than {BODY_MAX} bytes");
    let declared =
        ready.request("POST", "secret/data/app").header("content-length", (BODY_MAX + 1).to_string());
    ready.refused(&declared.end(b""), 413, &words);
    let vast = ready.request("POST", "secret/data/app").header("content-length", "99999999999999999999");
    assert!(matches!(ready.send(&vast.end(b"")).status, 400 | 413));
    // In pieces, without a size: exactly one byte too many, so that nothing is left unread.
    let pieces = ready.request("PUT", "secret/data/app").header("transfer-encoding", "chunked");
    let piece = [format!("{:x}\r\n", BODY_MAX + 1).into_bytes(), vec![b' '; BODY_MAX + 1]].concat();
    ready.refused(&pieces.end(&piece), 413, &words);
    ready.unharmed();
}

#[test]
fn a_body_at_the_limit_is_read() {
    let ready = Ready::new();
    let mut body = br#"{"data":{"password":"hunter2"}}"#.to_vec();
    body.resize(BODY_MAX, b' ');
    assert_eq!(ready.send(&ready.request("POST", "secret/data/app").body(&body)).status, 200);
    ready.unharmed();
}

#[test]
fn json_that_is_too_deep_is_refused() {
    let ready = Ready::new();
    let nested = |depth: usize| format!("{{\"data\":{{\"a\":{}1{}}}}}", "[".repeat(depth), "]".repeat(depth));
    let words = "nested deeper than 32 levels";
    for depth in [31, 100, 100_000] {
        ready.refused(&ready.request("POST", "secret/data/deep").body(nested(depth)), 400, words);
    }
    ready.refused(&ready.request("POST", "secret/data/deep").body("[".repeat(BODY_MAX)), 400, words);
    assert_eq!(ready.send(&ready.request("POST", "secret/data/deep").body(nested(30))).status, 200);
    ready.unharmed();
}

#[test]
fn huge_strings_are_refused_wherever_they_stand() {
    let ready = Ready::new();
    let long = "x".repeat(600 << 10);
    let too_large = |path: &str, body: String| {
        let answer = ready.send(&ready.request("POST", path).body(body));
        assert!(matches!(answer.status, 400 | 413) && answer.body.len() < 2_000, "{path}: {}", answer.status);
        assert!(!answer.error().is_empty(), "{path}");
    };
    let secret = json!({"data": {"k": long}}).to_string();
    too_large("secret/data/long", secret);
    let key = json!({"data": {long.as_str(): "v"}}).to_string();
    too_large("secret/data/long", key);
    let label = json!({"custom_metadata": {"k": long}}).to_string();
    too_large("secret/metadata/long", label);
    let meta = json!({"meta": {"k": long}}).to_string();
    too_large("auth/token/create", meta);
    let policies = json!({"policies": [long]}).to_string();
    too_large("auth/token/create", policies);
    let numbers = format!("{{\"ttl\": {}}}", "9".repeat(600 << 10));
    too_large("auth/token/create", numbers);
    let path = format!("secret/data/{}", "p".repeat(2_000));
    ready.refused(&ready.request("GET", path).end(b""), 400, "path is longer than 1024 bytes");
    let deep = format!("secret/data/{}", "p/".repeat(100));
    ready.refused(&ready.request("GET", deep + "p").end(b""), 400, "more than 64 segments");
    let query = format!("secret/data/app?version={}", "1".repeat(9_000));
    ready.refused(&ready.request("GET", query).end(b""), 400, "the query is malformed or longer");
    let token = Raw::new("GET", "/v1/secret/data/app").header("x-vault-token", "t".repeat(9_000));
    ready.refused(&token.end(b""), 400, "the token is longer than 8192 bytes");
    // Beyond what the HTTP layer reads at all.
    let headers = ready.request("GET", "secret/data/app").header("x-filler", "f".repeat(100 << 10));
    assert_eq!(ready.send(&headers.end(b"")).status, 431);
    ready.unharmed();
}

#[test]
fn what_is_no_json_is_refused_whatever_it_is_called() {
    let ready = Ready::new();
    let post = |kind: &str, body: &str| {
        ready.request("POST", "secret/data/app").header("content-type", kind).body(body)
    };
    let parse = "failed to parse JSON input";
    for (kind, body) in [
        ("application/xml", "<password>hunter2</password>"),
        ("text/plain", "password=hunter2"),
        ("application/json", "password=hunter2"),
        ("application/json", "{\"data\":{\"password\":\"hunter2\"}"),
        ("application/json", "{\"data\":hunter2}"),
        ("application/json", "[{\"data\":{\"password\":\"hunter2\"}}]"),
        ("application/json", "{\"data\":{}}{\"data\":{\"password\":\"hunter2\"}}"),
        (
            "multipart/form-data; boundary=b",
            "--b\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nhunter2\r\n--b--\r\n",
        ),
        ("", "hunter2"),
    ] {
        ready.refused(&post(kind, body), 400, parse);
    }
    let patch = ready.request("PATCH", "secret/data/app").header("content-type", "application/json");
    ready.refused(&patch.body("{\"data\":{\"password\":\"other\"}}"), 415, "PATCH requires Content-Type of");
    ready.refused(
        &ready.request("PATCH", "secret/data/app").body("{}"),
        415,
        "PATCH requires Content-Type of",
    );
    ready.unharmed();
}

#[test]
fn bytes_that_are_no_utf8_are_refused() {
    let ready = Ready::new();
    for body in [
        &b"{\"data\":{\"password\":\"\xff\xfe\"}}"[..],
        b"\xff",
        b"{\"\xc0\x80\":1}",
        b"{\"a\":\"\xed\xa0\x80\"}",
    ] {
        ready.refused(
            &ready.request("POST", "secret/data/app").body(body),
            400,
            "failed to parse JSON input",
        );
    }
    let surrogate = ready.request("POST", "secret/data/app").body("{\"data\":{\"password\":\"\\ud800\"}}");
    ready.refused(&surrogate, 400, "failed to parse JSON input");
    let form =
        ready.request("POST", "secret/data/app").header("content-type", "application/x-www-form-urlencoded");
    ready.refused(&form.body("data=%ff"), 400, "failed to parse form input");
    ready.refused(&ready.request("GET", "secret/data/%ff%fe").end(b""), 400, "path is not UTF-8");
    ready.refused(&ready.request("GET", "secret/data/%c0%ae%c0%ae/app").end(b""), 400, "path is not UTF-8");
    let token = Raw::new("GET", "/v1/secret/data/app").header("x-vault-token", b"\xff\xfe");
    ready.refused(&token.end(b""), 403, "permission denied");
    // Not escaped at all: the HTTP layer's to refuse, or the path's.
    assert_eq!(ready.send(&ready.request("GET", b"secret/data/\xff").end(b"")).status, 400);
    ready.unharmed();
}

#[test]
fn unknown_methods_are_refused_and_known_ones_named() {
    let ready = Ready::new();
    for method in
        ["BREW", "HEAD", "OPTIONS", "TRACE", "get", "PROPFIND", "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"]
    {
        let text = ready.exchange(&ready.request(method, "secret/data/app").body("{\"data\":{}}"));
        assert!(text.starts_with("HTTP/1.1 405 "), "{method}: {text}");
        assert!(text.contains("allow: GET, LIST, SCAN, POST, PUT, PATCH, DELETE\r\n"), "{method}: {text}");
        assert!(!text.contains("hunter2"));
    }
    assert_eq!(ready.send(&ready.request("G T", "secret/data/app").end(b"")).status, 400);
    ready.unharmed();
}

#[test]
fn no_spelling_of_a_path_leads_around_a_policy() {
    let ready = Ready::new();
    ready.shell.ok(&["kv", "put", "secret/mine/a", "k=mine"]);
    let rules = "path \"secret/data/mine/*\" { capabilities = [\"read\", \"create\", \"update\"] }";
    ready.shell.ok_with(&["policy", "write", "mine", "-"], rules);
    let made = ready.shell.json(&["token", "create", "--policy", "mine"]);
    let token = made["auth"]["client_token"].as_str().unwrap();
    let read = |target: &str| ready.send(&Raw::new("GET", target).header("x-vault-token", token).end(b""));
    assert_eq!(read("/v1/secret/data/mine/a").status, 200);
    for target in [
        "/v1/secret/data/app",
        "/v1/secret/data/mine/../app",
        "/v1/secret/data/mine/%2e%2e/app",
        "/v1/secret/data/mine/%2E%2E%2Fapp",
        "/v1/secret/data/mine/..%2fapp",
        "/v1/secret/data/mine/.%2e/app",
        "/v1/secret/data/mine/%252e%252e/app",
        "/v1/secret/data/mine/..;/app",
        "/v1/secret/data/mine/..\\app",
        "/v1/secret/data/mine/%5c..%5capp",
        "/v1/secret/data/mine//../app",
        "/v1/secret/data/mine/./../app",
        "/v1/secret/data//app",
        "/v1//secret/data/app",
        "//v1/secret/data/app",
        "/v1/%2fsecret/data/app",
        "/v1/secret%2fdata%2fapp",
        "/v1/secret/data/mine/%00/../app",
        "/v1/secret/data/app%00/mine/a",
        "/v1/secret/data/app?path=secret/data/mine/a",
        "/v1/secret/data/app%3f/mine/a",
        "/v1/secret/data/app#/mine/a",
        "/v1/secret/data/mine/%c0%ae%c0%ae/app",
        "/v1/SECRET/data/app",
        "/v1/secret/Data/app",
        "/v2/secret/data/app",
        "/v1/../v1/secret/data/app",
        "http://elsewhere/v1/secret/data/app",
        "/v1/secret/data/mine%0d%0ax-vault-token:%20root/../app",
    ] {
        let answer = read(target);
        assert!((400..405).contains(&answer.status), "{target}: {answer:?}");
        assert!(!answer.body.contains("hunter2"), "{target}: {answer:?}");
    }
    let log = ready.audit_log();
    assert!(log.contains("secret/data/mine/%2e%2e/app"), "refusals are recorded as they were sent");
    ready.unharmed();
}

#[test]
fn what_is_no_http_ends_its_connection_only() {
    let ready = Ready::new();
    for bytes in [
        &b"\x00\x01\x02\x03 nonsense of some length, more than a preface"[..],
        b"GET /v1/sys/health\r\n\r\n and what HTTP/0.9 would have done",
        b"GET /v1/sys/health HTTP/1.1\r\nbad header without a colon\r\n\r\n",
        b"GET /v1/sys/health HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
        b"POST /v1/secret/data/app HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/secret/data/app HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST /v1/secret/data/app HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let text = ready.exchange(bytes);
        let succeeded = text.starts_with("HTTP/1.1 2") || text.contains("hunter2");
        assert!(!succeeded, "{}: {text}", String::from_utf8_lossy(bytes));
    }
    // A second request hidden in the body of a first is no request.
    let hidden = ready.request("GET", "secret/data/app").end(b"");
    let outer = Raw::new("POST", "/v1/sys/wrapping/lookup").header("transfer-encoding", "chunked");
    let both =
        outer.header("content-length", hidden.len().to_string()).end(&[b"0\r\n\r\n", &hidden[..]].concat());
    let text = ready.exchange(&both);
    assert!(!text.contains("hunter2") && text.matches("HTTP/1.1 ").count() <= 1, "{text}");
    // No TLS at all, and a connection that is cut in the middle of a body.
    let mut plain = std::net::TcpStream::connect(ready.server.address).unwrap();
    plain.write_all(b"GET /v1/sys/health HTTP/1.1\r\n\r\n").unwrap();
    drop(plain);
    let cut =
        ready.request("POST", "secret/data/app").header("content-length", "100").end(b"{\"data\":{\"pass");
    let mut stream = connect(&ready.bed, &ready.server, &rustls::version::TLS13).unwrap();
    stream.write_all(&cut).unwrap();
    stream.flush().unwrap();
    drop(stream);
    ready.unharmed();
}
