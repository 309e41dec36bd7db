//! The requests that are sent, as bytes. Every server gets the same ones.

use std::io::Write as _;
use std::sync::Arc;

/// Bytes of a secret's value.
const VALUE_BYTES: usize = 1024;
/// Secrets of a directory.
const DIRECTORY: u64 = 1000;
/// The mount of the secrets.
pub(crate) const MOUNT: &str = "secret";

/// Writes the `turn`-th request of a connection to the buffer, which is empty.
pub(crate) type Maker = Arc<dyn Fn(Turn, &mut Rng, &mut Vec<u8>) + Send + Sync>;

/// Whose turn it is.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    /// The connection's number.
    pub(crate) connection: usize,
    /// The request's number among all; only where the arrivals are planned.
    pub(crate) number: u64,
}

/// Cheap random numbers (splitmix64), the same in every run.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Reads of random secrets among `secrets`, each connection with a token of its own.
pub(crate) fn reads(tokens: &Arc<Vec<String>>, secrets: u64) -> Maker {
    let tokens = Arc::clone(tokens);
    Arc::new(move |turn, rng, to| read(to, &tokens[turn.connection % tokens.len()], rng.below(secrets)))
}

/// New versions of random secrets among `secrets`.
pub(crate) fn writes(tokens: &Arc<Vec<String>>, secrets: u64) -> Maker {
    let tokens = Arc::clone(tokens);
    Arc::new(move |turn, rng, to| {
        let secret = rng.below(secrets);
        write(to, &tokens[turn.connection % tokens.len()], secret, rng);
    })
}

/// Nineteen reads, then a write.
pub(crate) fn mix(tokens: &Arc<Vec<String>>, secrets: u64) -> Maker {
    let (reads, writes) = (reads(tokens, secrets), writes(tokens, secrets));
    Arc::new(
        move |turn, rng, to| {
            if turn.number % 20 == 19 { writes(turn, rng, to) } else { reads(turn, rng, to) }
        },
    )
}

/// Whether a request of the mix is one of its writes.
pub(crate) fn is_write(request: &[u8]) -> bool {
    request.starts_with(b"POST ")
}

/// AppRole logins with one role and one secret id of unlimited uses.
pub(crate) fn logins(role_id: &str, secret_id: &str) -> Maker {
    let body = format!(r#"{{"role_id":"{role_id}","secret_id":"{secret_id}"}}"#);
    Arc::new(move |_, _, to| request(to, "POST", "auth/approle/login", None, body.as_bytes()))
}

/// Tokens made by a token.
pub(crate) fn creates(tokens: &Arc<Vec<String>>) -> Maker {
    let tokens = Arc::clone(tokens);
    let body = br#"{"policies":["bench"],"ttl":"1h"}"#;
    Arc::new(move |turn, _, to| {
        let token = &tokens[turn.connection % tokens.len()];
        request(to, "POST", "auth/token/create", Some(token), body);
    })
}

fn read(to: &mut Vec<u8>, token: &str, secret: u64) {
    let directory = secret / DIRECTORY;
    // Writing to a `Vec` does not fail.
    let _ = write!(
        to,
        "GET /v1/{MOUNT}/data/b/{directory}/{secret} HTTP/1.1\r\nHost: bench\r\nX-Vault-Token: {token}\r\n\r\n"
    );
}

/// A secret's body: random text, so that nothing can be compressed.
pub(crate) fn write(to: &mut Vec<u8>, token: &str, secret: u64, rng: &mut Rng) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let directory = secret / DIRECTORY;
    let length = VALUE_BYTES + br#"{"data":{"value":""}}"#.len();
    let _ = write!(
        to,
        "POST /v1/{MOUNT}/data/b/{directory}/{secret} HTTP/1.1\r\nHost: bench\r\nX-Vault-Token: {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{\"data\":{{\"value\":\""
    );
    for _ in 0..VALUE_BYTES / 8 {
        let bits = rng.next();
        to.extend((0..8).map(|n| LETTERS[(bits >> (6 * n)) as usize & 63]));
    }
    to.extend_from_slice(b"\"}}");
}

/// Any other request.
pub(crate) fn request(to: &mut Vec<u8>, method: &str, path: &str, token: Option<&str>, body: &[u8]) {
    let _ = write!(to, "{method} /v1/{path} HTTP/1.1\r\nHost: bench\r\n");
    if let Some(token) = token {
        let _ = write!(to, "X-Vault-Token: {token}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(to, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    to.extend_from_slice(b"\r\n");
    to.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_says_how_long_it_is_and_holds_a_kibibyte() {
        let mut bytes = Vec::new();
        write(&mut bytes, "s.t", 1234, &mut Rng::new(1));
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/secret/data/b/1/1234 HTTP/1.1"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(parsed["data"]["value"].as_str().unwrap().len(), VALUE_BYTES);
    }

    #[test]
    fn one_in_twenty_of_the_mix_is_a_write() {
        let maker = mix(&Arc::new(vec!["s.t".to_owned()]), 10);
        let mut rng = Rng::new(1);
        let posts = (0..100).filter(|number| {
            let mut bytes = Vec::new();
            maker(Turn { connection: 0, number: *number }, &mut rng, &mut bytes);
            is_write(&bytes)
        });
        assert_eq!(posts.count(), 5);
    }
}
