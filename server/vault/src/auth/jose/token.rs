//! A signed token: what its header says before anything is believed, and its claims once the signature is.

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::Refused;
use super::key_set::SigningKey;

/// The longest token that is looked at.
const JWT_BYTES_MAX: usize = 16 * 1024;
/// The most keys that one token is tried with.
const TRIES_MAX: usize = 16;

const MALFORMED: Refused = Refused("error verifying token signature: the JWT is malformed");

/// What a token says once its signature is believed.
pub(crate) type Claims = Map<String, Value>;

/// A token that nobody has verified yet.
pub(crate) struct Jwt<'a> {
    text: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl<'a> Jwt<'a> {
    /// Reads the header, to look the key up with. `none` is no algorithm at all.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Refused> {
        if text.len() > JWT_BYTES_MAX {
            return Err(Refused("the JWT is too long"));
        }
        if text.split('.').count() != 3 {
            return Err(MALFORMED);
        }
        let header = decode_header(text).map_err(|_| MALFORMED)?;
        if header.crit.is_some() {
            // It says itself that whoever does not understand it must refuse it (RFC 7515, 4.1.11).
            return Err(Refused("the JWT asks for an extension that is not supported"));
        }
        Ok(Self { text, algorithm: header.alg, key_id: header.kid })
    }

    /// The id of the key that it was signed with, if it names one.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The claims, if one of these keys signed it with one of these algorithms. A key is never used with an algorithm that
    /// is not its own: that a token asks for one does not count.
    pub(crate) fn verify<'k>(
        &self,
        keys: impl Iterator<Item = &'k SigningKey>,
        algorithms: Option<&[Algorithm]>,
    ) -> Result<Claims, Refused> {
        let mut any = false;
        let mut fitting = false;
        for key in keys {
            any = true;
            if !key.algorithms.contains(&self.algorithm) {
                continue;
            }
            fitting = true;
            let mut validation = Validation::new(self.algorithm);
            // What the claims must say is checked apart, by the vault's own clock.
            validation.required_spec_claims.clear();
            validation.validate_exp = false;
            validation.validate_aud = false;
            let Ok(token) = decode::<Claims>(self.text, &key.key, &validation) else { continue };
            if algorithms.is_some_and(|known| !known.contains(&self.algorithm)) {
                return Err(Refused(
                    "invalid algorithm (alg) header parameter: token signed with unexpected algorithm",
                ));
            }
            return Ok(token.claims);
        }
        Err(Refused(match (any, fitting) {
            (false, _) => "the JWT names an unknown key",
            (true, false) => "the JWT is signed with another algorithm than its key's",
            (true, true) => {
                "error verifying token signature: no known key successfully validated the token signature"
            }
        }))
    }

    /// What the token says, believed by nobody yet.
    pub(crate) fn unverified(&self) -> Result<Claims, Refused> {
        jsonwebtoken::dangerous::insecure_decode_claims(self.text).map_err(|_| MALFORMED)
    }

    /// The keys of a set that may have signed it: the one it names, or all.
    pub(crate) fn candidates<'k>(
        &self,
        keys: &'k [SigningKey],
    ) -> impl Iterator<Item = &'k SigningKey> + use<'k, '_, 'a> {
        let named = self.key_id.as_deref();
        keys.iter()
            .filter(move |key| match (named, &key.id) {
                (Some(named), Some(id)) => named == id,
                // Keys that were given as such have no id.
                (Some(_), None) | (None, _) => true,
            })
            .take(TRIES_MAX)
    }
}
