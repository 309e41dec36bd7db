//! Machines with tokens of an issuer: who gets in, by which keys, and who does not.

use std::time::Duration;

use coffer_vault::Clock as _;
use coffer_vault::Operation::{Delete, List, Read, Update};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::bed::issuer::{ISSUER, Issuer};
use crate::bed::{Answer, Bed};

const KEYS_URL: &str = "https://issuer.example.org/keys";

fn role() -> Value {
    json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": "coffer,other", "token_policies": "p",
        "token_ttl": "1h",
    })
}

/// A vault that trusts the issuer's key, with a role `dev`.
async fn trusting(issuer: &Issuer) -> Bed {
    let bed = Bed::new().await;
    bed.root(Update, "sys/auth/jwt", json!({"type": "jwt"})).await.expect(204);
    let config = json!({"jwt_validation_pubkeys": [issuer.public_pem()], "bound_issuer": ISSUER});
    bed.root(Update, "auth/jwt/config", config).await.expect(204);
    bed.root(Update, "auth/jwt/role/dev", role()).await.expect(204);
    bed
}

/// A vault that asks the issuer for its keys, with a role `dev`.
async fn asking(issuer: &Issuer) -> Bed {
    let bed = Bed::new().await;
    bed.pages.put(KEYS_URL, &issuer.jwks());
    bed.root(Update, "sys/auth/jwt", json!({"type": "jwt"})).await.expect(204);
    bed.root(Update, "auth/jwt/config", json!({"jwks_url": KEYS_URL, "bound_issuer": ISSUER}))
        .await
        .expect(204);
    bed.root(Update, "auth/jwt/role/dev", role()).await.expect(204);
    bed
}

async fn login(bed: &Bed, role: &str, jwt: &str) -> Answer {
    bed.send(Update, "auth/jwt/login", None, json!({"role": role, "jwt": jwt})).await
}

#[track_caller]
fn refused(answer: &Answer, status: u16, why: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text("/errors/0").contains(why), "{why}: {answer:?}");
}

#[tokio::test]
async fn a_machine_logs_in_with_a_token_of_every_kind_of_key() {
    for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256] {
        let issuer = Issuer::new(algorithm);
        for bed in [trusting(&issuer).await, asking(&issuer).await] {
            let jwt = issuer.jwt(&issuer.claims("bob", bed.clock.now()));
            let answer = login(&bed, "dev", &jwt).await.expect(200);
            assert_eq!(answer.body["auth"]["metadata"], json!({"role": "dev"}));
            assert_eq!(answer.body["auth"]["policies"], json!(["default", "p"]));
            assert_eq!(answer.body["auth"]["lease_duration"], 3600);
            let token = answer.text("/auth/client_token");
            let looked = bed.get("auth/token/lookup-self", &token).await.expect(200);
            assert_eq!(looked.body["data"]["display_name"], "jwt-bob");
            assert_eq!(looked.body["data"]["path"], "auth/jwt/login");
        }
    }
}

#[tokio::test]
async fn tokens_that_must_not_be_believed() {
    let issuer = Issuer::new(Algorithm::ES256);
    let bed = trusting(&issuer).await;
    let now = bed.clock.now();
    let good = issuer.claims("bob", now);
    let at = |secs: i64| json!(now.as_secs().saturating_add_signed(secs));
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.jwt(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        issuer.jwt(&claims)
    };
    let (lasting, day) = (at(25 * 3600), at(24 * 3600 + 300));
    for (jwt, why) in [
        (with("aud", json!("elsewhere")), "invalid audience"),
        (with("aud", json!([])), "invalid audience"),
        (with("aud", json!({"coffer": 1})), "invalid audience"),
        (without("aud"), "invalid audience"),
        (with("iss", json!("https://elsewhere")), "invalid issuer"),
        (with("iss", json!([ISSUER, "https://elsewhere"])), "invalid issuer"),
        (without("iss"), "invalid issuer"),
        (with("exp", json!("tomorrow")), "is not a number of seconds"),
        (with("exp", json!(-1)), "is not a number of seconds"),
        (with("exp", json!(1e300)), "is not a number of seconds"),
        (with("exp", at(-61)), "token is expired"),
        (with("exp", lasting.clone()), "longer than 24 hours"),
        (with("nbf", at(120)), "token not yet valid"),
        (with("iat", at(120)), "not yet valid"),
        (without("sub"), "claim \"sub\" not found in token"),
        (with("sub", json!("")), "claim \"sub\" is empty"),
        (with("sub", json!("a\nb")), "control characters"),
        (Issuer::new(Algorithm::ES256).jwt(&good), "no known key successfully validated"),
        ("a.b.c".into(), "the JWT is malformed"),
        ("e30.e30".into(), "the JWT is malformed"),
        ("x".repeat(20_000), "the JWT is too long"),
    ] {
        refused(&login(&bed, "dev", &jwt).await, 400, why);
    }
    // One that says only when it ends is good for a while before that, and no longer than a day from now.
    let mut claims = good.clone();
    claims.as_object_mut().unwrap().remove("iat");
    claims["exp"] = at(100);
    login(&bed, "dev", &issuer.jwt(&claims)).await.expect(200);
    claims["exp"] = at(600);
    refused(&login(&bed, "dev", &issuer.jwt(&claims)).await, 400, "not yet valid");
    bed.root(Update, "auth/jwt/role/dev", json!({"role_type": "jwt", "not_before_leeway": 3600}))
        .await
        .expect(204);
    login(&bed, "dev", &issuer.jwt(&claims)).await.expect(200);
    claims["exp"] = day;
    refused(&login(&bed, "dev", &issuer.jwt(&claims)).await, 400, "not yet valid");
    // Just over, and a little early, is within the clocks' leeway, unless the role has none.
    login(&bed, "dev", &with("exp", at(-59))).await.expect(200);
    login(&bed, "dev", &with("nbf", at(59))).await.expect(200);
    bed.root(Update, "auth/jwt/role/dev", json!({"role_type": "jwt", "clock_skew_leeway": -1}))
        .await
        .expect(204);
    refused(&login(&bed, "dev", &with("exp", at(0))).await, 400, "token is expired");
    refused(&login(&bed, "dev", &with("nbf", at(1))).await, 400, "token not yet valid");
    login(&bed, "dev", &issuer.jwt(&good)).await.expect(200);
}

#[tokio::test]
async fn a_token_without_an_end_ends_soon_after_its_beginning_as_the_role_says() {
    let issuer = Issuer::new(Algorithm::ES256);
    let bed = trusting(&issuer).await;
    let now = i64::try_from(bed.clock.now().as_secs()).unwrap();
    let token = |more: Value| {
        let mut claims = json!({"iss": ISSUER, "aud": "coffer", "sub": "bob"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        issuer.jwt(&claims)
    };
    // As OpenBao 2.7.2 answers: 150 seconds and the clocks' leeway, from the later of both.
    let issued = |ago: i64| token(json!({"iat": now - ago}));
    login(&bed, "dev", &issued(200)).await.expect(200);
    refused(&login(&bed, "dev", &issued(210)).await, 400, "token is expired");
    login(&bed, "dev", &token(json!({"iat": now - 300, "nbf": now - 20}))).await.expect(200);
    refused(
        &login(&bed, "dev", &token(json!({}))).await,
        400,
        "no issued at (iat), not before (nbf), or expiration",
    );
    let leeway = async |secs: i64| {
        let body = json!({"role_type": "jwt", "expiration_leeway": secs});
        bed.root(Update, "auth/jwt/role/dev", body).await.expect(204);
    };
    leeway(1000).await;
    login(&bed, "dev", &issued(1050)).await.expect(200);
    refused(&login(&bed, "dev", &issued(1060)).await, 400, "token is expired");
    leeway(-1).await;
    login(&bed, "dev", &issued(50)).await.expect(200);
    refused(&login(&bed, "dev", &issued(60)).await, 400, "token is expired");
    // One that says when it ends ends then.
    leeway(1000).await;
    let over = token(json!({"iat": now - 600, "exp": now - 60}));
    refused(&login(&bed, "dev", &over).await, 400, "token is expired");
}

#[tokio::test]
async fn a_token_does_not_choose_how_it_is_verified() {
    let issuer = Issuer::new(Algorithm::RS256);
    let bed = trusting(&issuer).await;
    let claims = issuer.claims("bob", bed.clock.now());
    let hs256 = |secret: &[u8]| {
        let header = jsonwebtoken::Header::new(Algorithm::HS256);
        jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(secret)).unwrap()
    };
    let good = issuer.jwt(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (_, payload) = signed.split_once('.').unwrap();
    let none = |alg: &str, signature: &str| {
        use base64::Engine as _;
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
        format!("{header}.{payload}.{signature}")
    };
    for jwt in [
        none("none", ""),
        none("None", ""),
        none("none", signature),
        none("", signature),
        none("RS384", signature),
        none("ES256", signature),
        format!("{signed}."),
        signed.to_owned(),
        // The public key as the secret.
        hs256(issuer.public_pem().as_bytes()),
        hs256(issuer.public_pem().trim().as_bytes()),
        issuer.signed(&json!({"alg": "HS256"}), &claims),
        issuer.signed(&json!({"alg": "PS256"}), &claims),
        issuer.signed(&json!({"alg": "RS256", "crit": ["exp"], "exp": 1}), &claims),
        // A key of its own in the header proves nothing.
        {
            let other = Issuer::new(Algorithm::ES256);
            other.signed(&json!({"alg": "ES256", "jwk": other.jwk()}), &claims)
        },
    ] {
        let answer = login(&bed, "dev", &jwt).await;
        assert_eq!(answer.status, 400, "{jwt}: {answer:?}");
    }
    login(&bed, "dev", &good).await.expect(200);
    // The mount may allow less than its keys can do.
    let mut config = json!({"jwt_validation_pubkeys": [issuer.public_pem()], "bound_issuer": ISSUER});
    config["jwt_supported_algs"] = json!(["ES256", "RS512"]);
    bed.root(Update, "auth/jwt/config", config.clone()).await.expect(204);
    refused(&login(&bed, "dev", &good).await, 400, "token signed with unexpected algorithm");
    for algorithm in ["HS256", "none", "ES512", ""] {
        config["jwt_supported_algs"] = json!(["RS256", algorithm]);
        bed.root(Update, "auth/jwt/config", config.clone()).await.expect(400);
    }
    // A symmetric key is no public key, also in a set that is fetched.
    let oct = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "k1"}]});
    bed.pages.put(KEYS_URL, &oct.to_string());
    bed.root(Update, "auth/jwt/config", json!({"jwks_url": KEYS_URL, "bound_issuer": ISSUER}))
        .await
        .expect(204);
    login(&bed, "dev", &hs256(b"secret-secret-secret-secret")).await.expect(400);
}

#[tokio::test]
async fn a_key_in_a_set_is_used_for_nothing_but_what_it_says() {
    let issuer = Issuer::new(Algorithm::RS256);
    let bed = asking(&issuer).await;
    let jwt = issuer.jwt(&issuer.claims("bob", bed.clock.now()));
    for (field, value, fits) in [
        ("use", json!("enc"), false),
        ("alg", json!("PS256"), false),
        ("alg", json!("ES256"), false),
        ("alg", json!("HS256"), false),
        ("kid", json!("k2"), false),
        ("kid", Value::Null, true),
        ("alg", json!("RS256"), true),
        ("use", json!("sig"), true),
    ] {
        let mut key = issuer.jwk();
        key[field] = value.clone();
        // What the set has besides is no matter: keys of kinds that nobody here knows, or that are broken.
        let others =
            [json!({"kty": "XX", "kid": "x"}), json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"})];
        bed.pages.put(KEYS_URL, &json!({"keys": [others[0], key, others[1], 5]}).to_string());
        bed.root(Update, "auth/jwt/config", json!({"jwks_url": KEYS_URL, "bound_issuer": ISSUER}))
            .await
            .expect(204);
        let answer = login(&bed, "dev", &jwt).await;
        assert_eq!(answer.status == 200, fits, "{field} {value}: {answer:?}");
    }
}

#[tokio::test]
async fn keys_that_change_are_asked_for_but_not_at_everybodys_pace() {
    let (first, mut second) = (Issuer::new(Algorithm::ES256), Issuer::new(Algorithm::ES256));
    second.key_id = "k2".into();
    let bed = asking(&first).await;
    let now = bed.clock.now();
    let (old, new) = (first.jwt(&first.claims("bob", now)), second.jwt(&second.claims("bob", now)));
    login(&bed, "dev", &old).await.expect(200);
    let asked = bed.pages.asked();
    for _ in 0..20 {
        refused(&login(&bed, "dev", &new).await, 400, "unknown key");
    }
    assert_eq!(bed.pages.asked(), asked, "strangers make it ask no more than every ten seconds");
    bed.pages.put(KEYS_URL, &second.jwks());
    bed.advance(Duration::from_secs(10)).await;
    login(&bed, "dev", &new).await.expect(200);
    assert_eq!(bed.pages.asked(), asked + 1);
    refused(&login(&bed, "dev", &old).await, 400, "unknown key");
    // An issuer that is away for a while keeps nobody out.
    bed.pages.remove(KEYS_URL);
    bed.advance(Duration::from_secs(900)).await;
    login(&bed, "dev", &new).await.expect(200);
    bed.advance(Duration::from_secs(2600)).await;
    let late = second.jwt(&second.claims("bob", bed.clock.now()));
    bed.advance(Duration::from_secs(200)).await;
    refused(&login(&bed, "dev", &late).await, 503, "could not be fetched");
}

#[tokio::test]
async fn new_keys_are_asked_for_too_where_a_token_names_none_or_an_old_one() {
    let (first, second) = (Issuer::new(Algorithm::ES256), Issuer::new(Algorithm::ES256));
    let bed = asking(&first).await;
    let now = bed.clock.now();
    let unnamed = |issuer: &Issuer| issuer.signed(&json!({"alg": "ES256"}), &issuer.claims("bob", now));
    login(&bed, "dev", &unnamed(&first)).await.expect(200);
    let asked = bed.pages.asked();
    bed.pages.put(KEYS_URL, &second.jwks());
    // Both keys are called `k1`.
    let named = second.jwt(&second.claims("bob", now));
    for jwt in [&unnamed(&second), &named] {
        refused(&login(&bed, "dev", jwt).await, 400, "no known key successfully validated");
    }
    assert_eq!(bed.pages.asked(), asked, "no more than every ten seconds");
    bed.advance(Duration::from_secs(10)).await;
    login(&bed, "dev", &unnamed(&second)).await.expect(200);
    login(&bed, "dev", &named).await.expect(200);
    assert_eq!(bed.pages.asked(), asked + 1);
    refused(&login(&bed, "dev", &unnamed(&first)).await, 400, "no known key");
    bed.pages.put(KEYS_URL, &first.jwks());
    bed.advance(Duration::from_secs(10)).await;
    login(&bed, "dev", &first.jwt(&first.claims("bob", now))).await.expect(200);
}

#[tokio::test]
async fn discovery_finds_the_keys_of_the_issuer_itself_only() {
    let issuer = Issuer::new(Algorithm::ES256);
    let bed = trusting(&issuer).await;
    let document = |said: &str, keys: &str| json!({"issuer": said, "jwks_uri": keys}).to_string();
    let well_known = format!("{ISSUER}/.well-known/openid-configuration");
    bed.pages.put(KEYS_URL, &issuer.jwks());
    let config = json!({"oidc_discovery_url": ISSUER});
    for (page, why) in [
        (None, "connection refused"),
        (Some("<html>".to_owned()), "not JSON"),
        (Some("{}".to_owned()), "another issuer"),
        (Some(document("https://elsewhere", KEYS_URL)), "another issuer"),
        (Some(document(ISSUER, "http://issuer.example.org/keys")), "not an https:// URL"),
        (Some(document(ISSUER, "https://issuer.example.org/none")), "connection refused"),
    ] {
        match &page {
            Some(text) => bed.pages.put(&well_known, text),
            None => bed.pages.remove(&well_known),
        }
        let answer = bed.root(Update, "auth/jwt/config", config.clone()).await;
        refused(&answer, 400, "error checking oidc discovery URL");
        refused(&answer, 400, why);
    }
    bed.pages.put(&well_known, &document(ISSUER, KEYS_URL));
    bed.root(Update, "auth/jwt/config", config).await.expect(204);
    let jwt = issuer.jwt(&issuer.claims("bob", bed.clock.now()));
    login(&bed, "dev", &jwt).await.expect(200);
    // The issuer that is trusted is the one that was discovered, also when the mount does not name it.
    let mut claims = issuer.claims("bob", bed.clock.now());
    claims["iss"] = json!("https://elsewhere");
    refused(&login(&bed, "dev", &issuer.jwt(&claims)).await, 400, "invalid issuer");
}

#[tokio::test]
async fn roles_are_bound_to_claims_and_take_names_and_metadata_out_of_them() {
    let issuer = Issuer::new(Algorithm::ES256);
    let bed = trusting(&issuer).await;
    let mut claims = issuer.claims("bob", bed.clock.now());
    claims["who"] = json!({"user": "u1", "team": "blue"});
    claims["groups"] = json!(["dev", "ops"]);
    let role = json!({
        "role_type": "jwt", "bound_audiences": ["coffer"], "user_claim": "/who/user", "user_claim_json_pointer": true,
        "bound_claims": {"/who/team": ["b*", "red"], "groups": "ops"}, "bound_claims_type": "glob",
        "claim_mappings": {"/who/team": "team", "/who/none": "none"}, "groups_claim": "groups",
    });
    bed.root(Update, "auth/jwt/role/team", role).await.expect(204);
    let answer = login(&bed, "TEAM", &issuer.jwt(&claims)).await.expect(200);
    assert_eq!(answer.body["auth"]["metadata"], json!({"role": "team", "team": "blue"}));
    let aliases = bed.root(List, "identity/entity-alias/id", Value::Null).await.expect(200);
    let info = aliases.body["data"]["key_info"].as_object().unwrap();
    assert!(info.values().any(|alias| alias["name"] == "u1" && alias["mount_type"] == "jwt"), "{info:?}");
    let with = |pointer: &str, value: Value| {
        let mut claims = claims.clone();
        *claims.pointer_mut(pointer).unwrap() = value;
        issuer.jwt(&claims)
    };
    for (jwt, why) in [
        (with("/who/team", json!("green")), "claim \"/who/team\" does not match"),
        (with("/who/team", json!(5)), "error converting claim '/who/team' to string"),
        (with("/who", json!({"user": "u1"})), "claim \"/who/team\" is missing"),
        (with("/who", json!({"team": "blue"})), "claim \"/who/user\" not found in token"),
        (with("/groups", json!(["dev"])), "claim \"groups\" does not match"),
        (with("/groups", json!([1])), "in groups claim could not be parsed as string"),
        (with("/groups", Value::Null), "\"groups\" claim not found in token"),
        (with("/who/team", json!("b".repeat(600))), "longer than 512 bytes"),
    ] {
        refused(&login(&bed, "team", &jwt).await, 400, why);
    }
    let subject =
        json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "coffer", "bound_subject": "eve"});
    bed.root(Update, "auth/jwt/role/eve", subject).await.expect(204);
    refused(&login(&bed, "eve", &issuer.jwt(&claims)).await, 400, "invalid subject (sub) claim");
    // How long ago somebody proved himself.
    bed.root(
        Update,
        "auth/jwt/role/team",
        json!({"role_type": "jwt", "bound_claims_type": "glob", "max_age": "1h"}),
    )
    .await
    .expect(204);
    refused(&login(&bed, "team", &issuer.jwt(&claims)).await, 400, "no authentication time");
    claims["auth_time"] = json!(bed.clock.now().as_secs() - 3700);
    refused(&login(&bed, "team", &issuer.jwt(&claims)).await, 400, "too long ago");
    claims["auth_time"] = json!(bed.clock.now().as_secs() - 3600);
    login(&bed, "team", &issuer.jwt(&claims)).await.expect(200);
}

#[tokio::test]
async fn what_would_not_be_enforced_is_refused_by_name() {
    let issuer = Issuer::new(Algorithm::ES256);
    let bed = trusting(&issuer).await;
    for (body, why) in [
        (json!({}), "exactly one of"),
        (json!({"jwt_validation_pubkeys": issuer.public_pem(), "jwks_url": KEYS_URL}), "exactly one of"),
        (json!({"jwt_validation_pubkeys": issuer.public_pem()}), "missing bound_issuer"),
        (json!({"jwt_validation_pubkeys": "rubbish", "bound_issuer": ISSUER}), "any valid public keys"),
        (json!({"jwks_url": "http://issuer/keys", "bound_issuer": ISSUER}), "must be an https:// URL"),
        (json!({"jwks_url": "https://issuer/none", "bound_issuer": ISSUER}), "error checking jwks URL"),
        (json!({"oidc_discovery_url": ISSUER, "oidc_client_id": "x"}), "oidc_client_id is not supported"),
        (
            json!({"oidc_discovery_url": ISSUER, "provider_config": {"provider": "x"}}),
            "provider_config is not",
        ),
    ] {
        refused(&bed.root(Update, "auth/jwt/config", body).await, 400, why);
    }
    for (more, why) in [
        (json!({"role_type": ""}), "'allowed_redirect_uris' must be set"),
        (json!({"role_type": "oidc", "allowed_redirect_uris": "https://x"}), "\"oidc\" is not supported"),
        (json!({"role_type": "x"}), "invalid 'role_type': x"),
        (json!({"bound_audiences": ""}), "missing bound_audiences"),
        (json!({"user_claim": ""}), "a user claim must be defined on the role"),
        (json!({"bound_claims_type": "x"}), "invalid 'bound_claims_type': x"),
        (json!({"bound_claims_type": "glob", "bound_claims": {"a": 1}}), "claim is not a string: 1"),
        (json!({"claim_mappings": {"a": "role"}}), "metadata key \"role\" is reserved"),
        (json!({"claim_mappings": {"a": "x", "b": "x"}}), "multiple keys are mapped to metadata key \"x\""),
        (json!({"clock_skew_leeway": "2h"}), "clock_skew_leeway cannot be greater than 3600 seconds"),
        (json!({"oidc_scopes": "x"}), "oidc_scopes is not supported"),
        (json!({"token_policies_template_claims": true}), "token_policies_template_claims is not supported"),
        (json!({"callback_mode": "device"}), "callback_mode is not supported"),
        (json!({"token_policies": "root"}), "auth methods cannot create root tokens"),
    ] {
        let mut body = role();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused(&bed.root(Update, "auth/jwt/role/r", body).await, 400, why);
    }
    bed.root(Update, "auth/jwt/oidc/auth_url", json!({"role": "dev"})).await.expect(400);
    for odd in ["a b", "-a", "a/b"] {
        bed.root(Update, &format!("auth/jwt/role/{odd}"), role()).await.expect(404);
    }
}

#[tokio::test]
async fn roles_and_settings_are_read_back_as_they_were_written() {
    let issuer = Issuer::new(Algorithm::ES256);
    let bed = trusting(&issuer).await;
    let more = json!({"role_type": "jwt", "default_role": "x", "clock_skew_leeway": "-1", "expiration_leeway": "10m"});
    bed.root(Update, "auth/jwt/role/Dev", more).await.expect(204);
    let dev = bed.root(Read, "auth/jwt/role/dev", Value::Null).await.expect(200);
    let data = &dev.body["data"];
    assert_eq!((&data["clock_skew_leeway"], &data["expiration_leeway"]), (&json!(-1), &json!(600)));
    assert_eq!(
        (&data["bound_audiences"], &data["bound_claims"]),
        (&json!(["coffer", "other"]), &Value::Null)
    );
    assert_eq!((&data["user_claim"], &data["token_policies"]), (&json!("sub"), &json!(["p"])));
    let listed = bed.root(List, "auth/jwt/role", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!(["dev"]));
    let config = bed.root(Read, "auth/jwt/config", Value::Null).await.expect(200);
    assert_eq!(config.body["data"]["jwt_validation_pubkeys"], json!([issuer.public_pem()]));
    assert_eq!(config.body["data"]["bound_issuer"], ISSUER);
    // The default role is for who names none.
    let jwt = issuer.jwt(&issuer.claims("bob", bed.clock.now()));
    refused(&login(&bed, "", &jwt).await, 400, "missing role");
    refused(&login(&bed, "none", &jwt).await, 400, "role \"none\" could not be found");
    let mut with_default = config.body["data"].clone();
    with_default["default_role"] = json!("Dev");
    bed.root(Update, "auth/jwt/config", with_default).await.expect(204);
    bed.send(Update, "auth/jwt/login", None, json!({"jwt": jwt})).await.expect(200);
    refused(&login(&bed, "dev", "").await, 400, "missing token");
    bed.root(Update, "auth/jwt/role/dev", json!({"role_type": "jwt", "token_bound_cidrs": "192.168.0.0/16"}))
        .await
        .expect(204);
    login(&bed, "dev", &jwt).await.expect(403);
    for _ in 0..2 {
        bed.root(Delete, "auth/jwt/role/dev", Value::Null).await.expect(204);
    }
    bed.root(Read, "auth/jwt/role/dev", Value::Null).await.expect(404);
    login(&bed, "dev", &jwt).await.expect(400);
}
