//! The claims that every token must have (RFC 7519, 4.1): who made it, for whom, about whom, and until when.

use std::time::Duration;

use coffer_core::time::Timestamp;
use serde_json::Value;

use super::Refused;
use super::token::Claims;

/// Tokens that live longer are refused: a copied one would be good for too long. Also how long a revoked pod's
/// tombstone has to stay.
pub(crate) const JWT_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The largest date that is read: 31 December 9999, as a count of seconds.
const DATE_MAX: u64 = 253_402_300_799;

/// How far clocks may be apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leeway {
    /// After its end a token is still believed for so long.
    pub(crate) late: Duration,
    /// Before its beginning, too.
    pub(crate) early: Duration,
    /// A token that says nothing of its beginning began so long before its end.
    pub(crate) unstated: Option<Duration>,
    /// A token that says nothing of its end ends so long after its beginning. None: it is none.
    pub(crate) endless: Option<Duration>,
}

/// What a token has to say.
pub(crate) struct Expected<'a> {
    /// `iss`, exactly. None only where somebody else has checked it.
    pub(crate) issuer: Option<&'a str>,
    /// One of these must be in `aud`.
    pub(crate) audiences: &'a [String],
    /// `sub`, if it matters here.
    pub(crate) subject: Option<&'a str>,
    pub(crate) leeway: Leeway,
}

impl Expected<'_> {
    /// Checks a token whose signature is believed. Gives back when it begins and when it ends.
    pub(crate) fn check(&self, claims: &Claims, now: Timestamp) -> Result<(Timestamp, Timestamp), Refused> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss").is_none_or(|said| self.issuer.is_some_and(|wanted| said != wanted)) {
            return Err(Refused("invalid issuer (iss) claim"));
        }
        if self.subject.is_some_and(|wanted| text("sub") != Some(wanted)) {
            return Err(Refused("invalid subject (sub) claim"));
        }
        let meant =
            |audience: &Value| audience.as_str().is_some_and(|a| self.audiences.iter().any(|b| a == b));
        if !match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(meant),
            Some(one) => meant(one),
            None => false,
        } {
            return Err(Refused(
                "invalid audience (aud) claim: audience claim does not match any expected audience",
            ));
        }
        self.check_times(claims, now)
    }

    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<(Timestamp, Timestamp), Refused> {
        let issued = date(claims, "iat")?;
        let not_before = date(claims, "nbf")?;
        // As in Vault the later one counts, where the end follows from it.
        let expires = match (date(claims, "exp")?, issued.max(not_before), self.leeway.endless) {
            (Some(expires), ..) => expires,
            (None, Some(begins), Some(life)) => begins.plus(life),
            (None, None, Some(_)) => {
                return Err(Refused(
                    "no issued at (iat), not before (nbf), or expiration time (exp) claims in token",
                ));
            }
            (None, _, None) => return Err(Refused("no expiration time (exp) claim in token")),
        };
        let begins = not_before.or(issued);
        let latest = now.plus(self.leeway.early);
        let too_early = match (begins, self.leeway.unstated) {
            (Some(begins), _) => latest < begins,
            (None, Some(life)) => latest.plus(life) < expires,
            (None, None) => return Err(Refused("no issued at (iat) or not before (nbf) claim in token")),
        };
        if too_early {
            return Err(Refused("invalid not before (nbf) claim: token not yet valid"));
        }
        if now >= expires.plus(self.leeway.late) {
            return Err(Refused("invalid expiration time (exp) claim: token is expired"));
        }
        if issued.is_some_and(|issued| latest < issued) {
            return Err(Refused("invalid issued at (iat) claim: token issued in the future"));
        }
        let since = issued.or(begins).unwrap_or(now);
        if expires.saturating_sub(since) > JWT_LIFE_MAX + self.leeway.early {
            return Err(Refused("the JWT lives longer than 24 hours"));
        }
        Ok((since, expires))
    }
}

/// A date: seconds since 1970, with or without a fraction.
fn date(claims: &Claims, name: &str) -> Result<Option<Timestamp>, Refused> {
    const WRONG: Refused = Refused("a date in the JWT is not a number of seconds since 1970");
    let value = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let secs = match value.as_u64() {
        Some(secs) => secs,
        None => {
            let number = value.as_f64().filter(|n| *n >= 0.0 && *n <= DATE_MAX as f64).ok_or(WRONG)?;
            number as u64
        }
    };
    if secs > DATE_MAX { Err(WRONG) } else { Ok(Some(Timestamp::from_secs(secs))) }
}
