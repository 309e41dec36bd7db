//! Public keys that tokens are verified with: out of a JSON Web Key Set or out of PEM.
//!
//! Symmetric keys are none: whoever could verify with one could also sign.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Refused;

/// The most keys of a set.
const KEYS_MAX: usize = 64;
/// What RSA keys sign with (RFC 7518, 3.1).
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// One key.
#[derive(Clone)]
pub(crate) struct SigningKey {
    /// The name that tokens call it by; keys out of PEM have none.
    pub(super) id: Option<String>,
    /// What it may be used with. Never empty, never symmetric.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// Keys of one issuer.
#[derive(Clone, Default)]
pub(crate) struct KeySet(Vec<SigningKey>);

/// The algorithm of this name, unless it is symmetric or not supported.
pub(crate) fn algorithm_named(name: &str) -> Option<Algorithm> {
    let algorithm: Algorithm = name.parse().ok()?;
    let symmetric = matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
    (!symmetric).then_some(algorithm)
}

impl KeySet {
    /// Reads a JSON Web Key Set (RFC 7517). Keys that are not for signing, or of a kind that is not supported, are left
    /// out: they are somebody else's business.
    pub(crate) fn from_jwks(text: &str) -> Result<Self, Refused> {
        const NONE: Refused = Refused("not a JSON Web Key Set");
        let value: Value = serde_json::from_str(text).map_err(|_| NONE)?;
        let keys = value.get("keys").and_then(Value::as_array).ok_or(NONE)?;
        if keys.len() > KEYS_MAX {
            return Err(Refused("a JSON Web Key Set of more than 64 keys"));
        }
        Ok(Self(keys.iter().filter_map(SigningKey::from_jwk).collect()))
    }

    /// Reads public keys and certificates in PEM.
    pub(crate) fn from_pem<T: AsRef<str>>(texts: &[T]) -> Result<Self, Refused> {
        const NONE: Refused = Refused("data does not contain any valid public keys");
        let mut keys = Vec::new();
        for text in texts {
            let before = keys.len();
            for pem in Pem::iter_from_buffer(text.as_ref().as_bytes()) {
                keys.push(pem.ok().as_ref().and_then(SigningKey::from_pem).ok_or(NONE)?);
            }
            if keys.len() == before {
                return Err(NONE);
            }
        }
        if keys.len() > KEYS_MAX {
            return Err(Refused("more than 64 keys"));
        }
        Ok(Self(keys))
    }

    /// Whether there is a key of this id.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// The keys.
    pub(crate) fn keys(&self) -> &[SigningKey] {
        &self.0
    }
}

impl SigningKey {
    fn from_jwk(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|for_what| *for_what != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(params) => vec![match params.curve {
                EllipticCurve::P256 => Algorithm::ES256,
                EllipticCurve::P384 => Algorithm::ES384,
                _ => return None,
            }],
            AlgorithmParameters::OctetKeyPair(params) if params.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            _ => return None,
        };
        if let Some(own) = &jwk.common.key_algorithm {
            // One that says what it is for is for nothing else.
            let own = algorithm_named(&own.to_string())?;
            algorithms.retain(|algorithm| *algorithm == own);
            if algorithms.is_empty() {
                return None;
            }
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }

    fn from_pem(pem: &Pem) -> Option<Self> {
        match pem.label.as_str() {
            "PUBLIC KEY" => Self::from_spki(&SubjectPublicKeyInfo::from_der(&pem.contents).ok()?.1),
            "RSA PUBLIC KEY" => Some(Self::unnamed(RSA.to_vec(), DecodingKey::from_rsa_der(&pem.contents))),
            "CERTIFICATE" => Self::from_spki(X509Certificate::from_der(&pem.contents).ok()?.1.public_key()),
            _ => None,
        }
    }

    fn from_spki(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let bits = &*info.subject_public_key.data;
        let kind = &info.algorithm.algorithm;
        if *kind == OID_PKCS1_RSAENCRYPTION {
            info.parsed().ok()?;
            return Some(Self::unnamed(RSA.to_vec(), DecodingKey::from_rsa_der(bits)));
        }
        if *kind == OID_SIG_ED25519 {
            return (bits.len() == 32)
                .then(|| Self::unnamed(vec![Algorithm::EdDSA], DecodingKey::from_ed_der(bits)));
        }
        if *kind != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        // An uncompressed point: one byte and two coordinates.
        let (algorithm, bytes) = match curve {
            curve if curve == OID_EC_P256 => (Algorithm::ES256, 65),
            curve if curve == OID_NIST_EC_P384 => (Algorithm::ES384, 97),
            _ => return None,
        };
        (bits.len() == bytes).then(|| Self::unnamed(vec![algorithm], DecodingKey::from_ec_der(bits)))
    }

    const fn unnamed(algorithms: Vec<Algorithm>, key: DecodingKey) -> Self {
        Self { id: None, algorithms, key }
    }
}
