//! Fuzz targets of addresses, paths, and what a server, or whoever answers in its place, sends.

use coffer_fuzz::{Target, kind, text};
use coffer_wire::{DeliveryDocument, Envelope, Event};
use http::{StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ClientError;
use crate::address::{Address, target};
use crate::call::refusal;

#[test]
fn an_address_is_of_one_host_and_plain_only_on_loopback() {
    let words = [
        "https://",
        "http://",
        "127.0.0.1",
        "localhost",
        "[::1]",
        ":8200",
        "user:hunter2@",
        "/",
        "/v1",
        "?",
        "#",
        " ",
        "\\",
        "%00",
    ];
    Target::new("address").words(&words).run(|input| {
        let given = text(input);
        let address = match Address::parse(&given) {
            Ok(address) => address,
            Err(why) => {
                assert!(!given.contains('@') || !why.to_string().contains("hunter2"), "{why}");
                return kind(&why);
            }
        };
        assert!(!given.contains('@') && !address.host.is_empty());
        let ip = address.host.parse::<std::net::IpAddr>();
        assert!(address.tls || address.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()));
        let again = format!("http{}://{}", if address.tls { "s" } else { "" }, address.authority());
        let again = Address::parse(&again).unwrap();
        assert_eq!((again.host, again.port, again.tls), (address.host, address.port, address.tls));
        format!("{} {}", address.tls, address.port == 8200)
    });
}

/// The path, a key and a value for the query, as lines.
#[test]
fn a_path_is_escaped_so_that_it_cannot_become_another() {
    let words = ["..", ".", "/", "%", "%2e", "?", "#", "é", "\0", "a b", "\n"];
    Target::new("client-path").words(&words).run(|input| {
        let given = text(input);
        let mut lines = given.splitn(3, '\n');
        let mut line = || lines.next().unwrap_or_default();
        let (path, key, value) = (line(), line(), line());
        let written = match target(path, &[(key, value)]) {
            Ok(written) => written,
            Err(why) => return kind(&why),
        };
        if written.len() > 60_000 {
            return "a query longer than a URL can be".into();
        }
        let uri: Uri = written.parse().unwrap();
        let read = coffer_core_path(uri.path());
        assert_eq!(read, path, "the path is the same on the other side");
        assert_eq!(uri.query().unwrap().matches(['=', '&', '?', '#']).count(), 1);
        format!("{}", path.split('/').count().min(9))
    });
}

/// What the server's first step makes of a URL's path.
fn coffer_core_path(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.strip_prefix("/v1/").unwrap().bytes();
    while let Some(byte) = rest.next() {
        let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
        bytes.push(if byte == b'%' {
            digit(rest.next().unwrap()) << 4 | digit(rest.next().unwrap())
        } else {
            byte
        });
    }
    String::from_utf8(bytes).unwrap()
}

/// What is read is written as it would be read again.
fn steady<T: DeserializeOwned + Serialize>(input: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(input) else { return false };
    let once = serde_json::to_string(&read).unwrap();
    let again = serde_json::to_string(&serde_json::from_str::<T>(&once).unwrap()).unwrap();
    assert_eq!(without_fractions(&once), without_fractions(&again));
    true
}

/// The reader is not exact to the last digit of what is no whole number.
fn without_fractions(text: &str) -> Value {
    fn plain(value: Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => Value::Null,
            Value::Array(items) => items.into_iter().map(plain).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, plain(value))).collect(),
            other => other,
        }
    }
    plain(serde_json::from_str(text).unwrap())
}

#[test]
fn a_reply_reads_back_and_a_refusal_is_bounded() {
    let words = [
        "data",
        "errors",
        "auth",
        "client_token",
        "wrap_info",
        "document",
        "source",
        "path",
        "leased",
        "onChange",
        "http",
        "post",
        "lease_duration",
    ];
    Target::new("reply").words(&words).run(|input| {
        let read = [steady::<Envelope<Value>>(input), steady::<DeliveryDocument>(input)];
        let event = serde_json::from_slice::<Event>(input).is_ok();
        let ClientError::Status { code: 400, errors } = refusal(StatusCode::BAD_REQUEST, input) else {
            panic!("a refusal is one");
        };
        assert!(errors.len() <= 8 && errors.iter().all(|error| error.chars().count() <= 512));
        format!("{read:?} {event} {}", errors.len())
    });
}
