//! An issuer of signed tokens, for stories in which machines log in: what it signed is `{{jwt_...}}` there.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// The public key (`jwt_key`) and tokens, each as it stands within a JSON text. The same for both servers.
pub(crate) fn texts() -> &'static BTreeMap<String, String> {
    static TEXTS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    TEXTS.get_or_init(make)
}

fn make() -> BTreeMap<String, String> {
    let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let good = json!({
        "iss": "me", "aud": ["here", "there"], "sub": "bob", "iat": now, "exp": now + 3600,
        "team": "blue", "level": 5, "on": true, "who": {"name": "robert", "groups": ["dev", "ops"]},
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(&own, &claims)
    };
    let texts = [
        ("key", own.public_key_pem().trim().replace('\n', "\\n")),
        ("good", signed(&own, &good)),
        ("other", signed(&other, &good)),
        ("audience", with("aud", json!("elsewhere"))),
        ("issuer", with("iss", json!("you"))),
        ("subject", with("sub", json!("eve"))),
        ("over", with("exp", json!(now - 600))),
        ("early", with("nbf", json!(now + 600))),
        ("team", with("team", json!("red"))),
        ("teamless", with("team", Value::Null)),
        ("level", with("level", json!(6))),
        ("groups", with("who", json!({"name": "robert"}))),
        ("nameless", with("who", json!({"groups": []}))),
    ];
    texts.into_iter().map(|(name, text)| (format!("jwt_{name}"), text)).collect()
}

fn signed(key: &KeyPair, claims: &Value) -> String {
    let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
    encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
}
