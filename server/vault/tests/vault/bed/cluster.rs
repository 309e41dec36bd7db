//! A Kubernetes cluster, as far as its tokens go: one signing key.

use coffer_core::time::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://kubernetes.default.svc";

pub struct Cluster {
    key: EncodingKey,
    jwks: String,
}

impl Cluster {
    pub fn new() -> Self {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("k1".into());
        let jwks = json!({ "keys": [jwk] }).to_string();
        Self { key, jwks }
    }

    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    pub fn claims(&self, namespace: &str, account: &str, pod: &str, now: Timestamp) -> Value {
        json!({
            "iss": ISSUER,
            "aud": ["coffer"],
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "exp": now.as_secs() + 3600,
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": account, "uid": format!("sa-{account}")},
                "pod": {"name": format!("{account}-{pod}"), "uid": pod},
            },
        })
    }

    pub fn jwt(&self, claims: &Value) -> String {
        let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.key).unwrap()
    }
}
