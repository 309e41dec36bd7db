//! Somebody whose signed tokens a vault may trust: keys of every kind, and tokens as right or as wrong as wanted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coffer_core::time::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://issuer.example.org";

/// One key of its own kind.
pub struct Issuer {
    pair: KeyPair,
    algorithm: Algorithm,
    pub key_id: String,
}

impl Issuer {
    pub fn new(algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
            other => panic!("{other:?} is not made here"),
        };
        Self { pair: KeyPair::generate_for(kind).unwrap(), algorithm, key_id: "k1".into() }
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// Its key set, with its one key.
    pub fn jwks(&self) -> String {
        json!({ "keys": [self.jwk()] }).to_string()
    }

    pub fn jwk(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            let x = URL_SAFE_NO_PAD.encode(self.pair.der_bytes());
            return json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.key_id, "use": "sig"});
        }
        let pem = self.pair.serialize_pem();
        let key = match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let mut jwk = Jwk::from_encoding_key(&key.unwrap(), self.algorithm).unwrap();
        jwk.common.key_id = Some(self.key_id.clone());
        serde_json::to_value(jwk).unwrap()
    }

    /// What a good token says.
    pub fn claims(&self, subject: &str, now: Timestamp) -> Value {
        json!({
            "iss": ISSUER,
            "aud": ["coffer"],
            "sub": subject,
            "iat": now.as_secs(),
            "exp": now.as_secs() + 3600,
        })
    }

    /// A token that says this.
    pub fn jwt(&self, claims: &Value) -> String {
        let header = json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": self.key_id});
        self.signed(&header, claims)
    }

    /// A token with a header of one's choice, signed with this key whatever the header says.
    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self.algorithm {
            // rcgen signs in DER; tokens have the two numbers as they are (RFC 7518, 3.4).
            Algorithm::ES256 | Algorithm::ES384 => {
                let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).unwrap();
                let text = jsonwebtoken::crypto::sign(message, &key, self.algorithm).unwrap();
                URL_SAFE_NO_PAD.decode(text).unwrap()
            }
            _ => self.pair.sign(message).unwrap(),
        }
    }
}
