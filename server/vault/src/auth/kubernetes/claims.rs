//! A ServiceAccount's JWT: its signature, and what it says.
//!
//! The order is fixed: nothing in a token is believed before its signature, issuer and audience are.

use std::time::Duration;

use coffer_core::time::Timestamp;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::error::Fail;

/// The longest JWT that is looked at.
const JWT_BYTES_MAX: usize = 16 * 1024;
/// JWTs that live longer are refused: a copied one would be good for too long. Also how long a revoked pod's
/// tombstone has to stay.
pub(super) const JWT_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How far the clocks of the cluster and of this server may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// What a ServiceAccount's token says, as far as it matters.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: u64,
    iat: u64,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Clone, Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    #[serde(default)]
    pod: Option<Named>,
}

#[derive(Clone, Debug, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// Who a verified token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) service_account_uid: String,
    /// Name and UID.
    pub(super) pod: Option<(String, String)>,
}

/// The key's id, out of a token that nobody has verified yet. Only to look the key up with.
pub(super) fn key_id(jwt: &str) -> Result<String, Fail> {
    if jwt.len() > JWT_BYTES_MAX {
        return Err(Fail::Login("the JWT is too long"));
    }
    let header = decode_header(jwt).map_err(|_| Fail::Login("the JWT is malformed"))?;
    header.kid.ok_or(Fail::Login("the JWT names no key"))
}

/// Verifies a token with the key it names, and takes its identity.
pub(super) fn verify(
    jwt: &str,
    key: &Jwk,
    issuer: &str,
    audience: &str,
    now: Timestamp,
) -> Result<Identity, Fail> {
    // The algorithm is the key's, never the token's choice.
    let algorithm = algorithm(key).ok_or(Fail::Login("the signing key is of an unsupported kind"))?;
    let decoding = DecodingKey::from_jwk(key).map_err(|_| Fail::Login("the signing key is malformed"))?;
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // Times are checked below, by the vault's own clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let claims = decode::<Claims>(jwt, &decoding, &validation)
        .map_err(|error| Fail::Login(reason(error.kind())))?
        .claims;
    check_times(&claims, now)?;
    identity(claims)
}

fn algorithm(key: &Jwk) -> Option<Algorithm> {
    match &key.algorithm {
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        AlgorithmParameters::EllipticCurve(params) => match params.curve {
            EllipticCurve::P256 => Some(Algorithm::ES256),
            EllipticCurve::P384 => Some(Algorithm::ES384),
            _ => None,
        },
        _ => None,
    }
}

const fn reason(kind: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidSignature => "the JWT's signature does not verify",
        ErrorKind::InvalidIssuer => "the JWT is of another issuer",
        ErrorKind::InvalidAudience => "the JWT is for another audience",
        ErrorKind::InvalidAlgorithm => "the JWT is signed with another algorithm than its key's",
        ErrorKind::MissingRequiredClaim(_) => "the JWT lacks a required claim",
        _ => "the JWT does not verify",
    }
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), Fail> {
    let at = Timestamp::from_secs;
    if now >= at(claims.exp) {
        return Err(Fail::Login("the JWT is expired"));
    }
    if now.plus(LEEWAY) < at(claims.nbf.unwrap_or(claims.iat)) || now.plus(LEEWAY) < at(claims.iat) {
        return Err(Fail::Login("the JWT is not valid yet"));
    }
    if at(claims.exp).saturating_sub(at(claims.iat)) > JWT_LIFE_MAX + LEEWAY {
        return Err(Fail::Login("the JWT lives longer than 24 hours"));
    }
    Ok(())
}

fn identity(claims: Claims) -> Result<Identity, Fail> {
    let Kubernetes { namespace, serviceaccount, pod } = claims.kubernetes;
    if claims.sub != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
        return Err(Fail::Login("the JWT contradicts itself about its subject"));
    }
    let plain = |text: &str| {
        let good = |c: u8| c.is_ascii_alphanumeric() || b"-.".contains(&c);
        !text.is_empty() && text.len() <= 253 && text.bytes().all(good)
    };
    let pod_fine = pod.as_ref().is_none_or(|p| plain(&p.name) && plain(&p.uid));
    if !plain(&namespace) || !plain(&serviceaccount.name) || !plain(&serviceaccount.uid) || !pod_fine {
        return Err(Fail::Login("the JWT has a name that Kubernetes would not give"));
    }
    Ok(Identity {
        namespace,
        service_account: serviceaccount.name,
        service_account_uid: serviceaccount.uid,
        pod: pod.map(|p| (p.name, p.uid)),
    })
}
