//! Fuzz targets of tokens that others signed, and of the keys they are verified with.

use std::time::Duration;

use coffer_core::time::Timestamp;
use coffer_fuzz::{Target, kind, text};
use serde_json::Value;

use super::jose::{Expected, Jwt, KeySet, Leeway, algorithm_named};

/// The public half of the key that signed the corpus.
const KEYS: &str = include_str!("fuzz_keys.json");

/// Nothing but the very tokens of the corpus is believed.
#[test]
fn a_token_that_was_changed_is_not_believed() {
    let words = [
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJIUzI1NiJ9",
        ".",
        "..",
        "=",
        "e30",
        "AA",
        "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIn0",
    ];
    let target = Target::new("jwt").words(&words).runs(3_000);
    let signed: Vec<Vec<u8>> = target.corpus().into_iter().map(|(_, token)| token).collect();
    let keys = KeySet::from_jwks(KEYS).unwrap();
    target.run(|input| {
        let given = text(input);
        let jwt = match Jwt::parse(&given) {
            Ok(jwt) => jwt,
            Err(why) => return kind(&why),
        };
        match jwt.verify(jwt.candidates(keys.keys()), None) {
            Ok(claims) => {
                assert!(
                    signed.iter().any(|token| token == input),
                    "believed, and nobody signed it: {claims:?}"
                );
                "believed".into()
            }
            Err(why) => kind(&why),
        }
    });
}

#[test]
fn claims_that_are_believed_are_of_the_issuer_for_us_and_of_today() {
    let words = [
        "iss",
        "aud",
        "sub",
        "exp",
        "nbf",
        "iat",
        "issuer",
        "coffer",
        "1800000000",
        "1800003600",
        "253402300800",
        "1e300",
    ];
    Target::new("jwt-claims").words(&words).run(|input| {
        let Ok(Value::Object(claims)) = serde_json::from_slice(input) else { return "no object".into() };
        let now = Timestamp::from_secs(1_800_000_000);
        let leeway = Leeway {
            late: Duration::from_secs(30),
            early: Duration::from_secs(30),
            unstated: None,
            endless: None,
        };
        let audiences = ["coffer".to_owned()];
        let expected = Expected { issuer: Some("issuer"), audiences: &audiences, subject: None, leeway };
        match expected.check(&claims, now) {
            Ok((_, ends)) => {
                assert_eq!(claims["iss"], "issuer");
                assert!(
                    claims["aud"] == "coffer"
                        || claims["aud"].as_array().is_some_and(|a| a.contains(&"coffer".into()))
                );
                assert!(ends.plus(leeway.late) > now, "expired");
                assert!(ends.saturating_sub(now) <= Duration::from_secs(24 * 3600 + 60), "lives too long");
                "believed".into()
            }
            Err(why) => kind(&why),
        }
    });
}

#[test]
fn keys_are_few_and_never_symmetric() {
    let words = [
        "keys",
        "kty",
        "oct",
        "RSA",
        "EC",
        "OKP",
        "crv",
        "P-256",
        "Ed25519",
        "use",
        "sig",
        "enc",
        "alg",
        "HS256",
        "ES256",
        "kid",
        "-----BEGIN PUBLIC KEY-----\n",
        "-----END PUBLIC KEY-----\n",
        "-----BEGIN CERTIFICATE-----\n",
    ];
    Target::new("signing-keys").words(&words).runs(3_000).run(|input| {
        let given = text(input);
        let mut answer = String::new();
        for set in [KeySet::from_jwks(&given), KeySet::from_pem(&[given.as_ref()])] {
            match set {
                Ok(set) => {
                    assert!(set.keys().len() <= 64);
                    answer.push_str(&set.keys().len().min(3).to_string());
                }
                Err(why) => answer.push_str(&kind(&why)),
            }
        }
        if let Some(algorithm) = algorithm_named(&given) {
            assert!(!format!("{algorithm:?}").starts_with("HS"));
        }
        answer
    });
}
