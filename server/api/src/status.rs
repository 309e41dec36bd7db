//! The closed list of requests that are answered without a token and whatever the audit log's state: health,
//! seal status, initialisation, unsealing, the CA bundle.

use std::collections::BTreeMap;

use coffer_core::secret::SecretString;
use coffer_vault::{HealthParams, StatusRequest, scrub};
use serde_json::{Map, Value};

use crate::parse::Unfit;

/// `sys/health` with its query. `standbyok` and its like are accepted: there is no standby that they could mean.
pub(crate) fn health(query: &BTreeMap<String, String>) -> Result<StatusRequest, Unfit> {
    let code = |key: &'static str| match query.get(key) {
        None => Ok(None),
        Some(text) => match text.parse::<u16>() {
            Ok(code @ 200..=599) => Ok(Some(code)),
            _ => Err(Unfit::Code(key)),
        },
    };
    Ok(StatusRequest::Health(HealthParams {
        active_code: code("activecode")?,
        sealed_code: code("sealedcode")?,
        uninit_code: code("uninitcode")?,
    }))
}

/// `PUT sys/init`.
pub(crate) fn init(body: &Map<String, Value>) -> StatusRequest {
    // What is absent or no number becomes 0, which the vault refuses in its own words.
    let number = |key: &str| match body.get(key) {
        Some(Value::Number(n)) => n.as_u64().unwrap_or(0),
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        _ => 0,
    };
    let says = |key: &str| match body.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    StatusRequest::Init {
        secret_shares: number("secret_shares"),
        secret_threshold: number("secret_threshold"),
        pgp: says("pgp_keys") || says("root_token_pgp_key"),
    }
}

/// `PUT sys/unseal`.
pub(crate) fn unseal(mut body: Map<String, Value>) -> StatusRequest {
    let key = match body.get_mut("key") {
        Some(Value::String(text)) if !text.is_empty() => Some(SecretString::new(std::mem::take(text))),
        _ => None,
    };
    let reset = matches!(body.get("reset"), Some(Value::Bool(true)));
    body.values_mut().for_each(scrub);
    StatusRequest::Unseal { key, reset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_codes() {
        let query = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let request = health(&query(&[("standbyok", "true"), ("sealedcode", "200"), ("uninitcode", "299")]));
        let Ok(StatusRequest::Health(params)) = request else { panic!("not health") };
        assert_eq!(
            (params.active_code, params.sealed_code, params.uninit_code),
            (None, Some(200), Some(299))
        );
        for bad in ["abc", "42", "99999", "-1", "600", ""] {
            assert_eq!(
                health(&query(&[("activecode", bad)])).unwrap_err(),
                Unfit::Code("activecode"),
                "{bad}"
            );
        }
    }

    #[test]
    fn unseal_takes_the_key_out_of_the_body() {
        let body = serde_json::json!({"key": "abcd", "reset": true});
        let StatusRequest::Unseal { key, reset } = unseal(body.as_object().unwrap().clone()) else {
            panic!("not unseal")
        };
        assert_eq!((key.unwrap().expose(), reset), ("abcd", true));
        let StatusRequest::Unseal { key, reset } = unseal(Map::new()) else { panic!("not unseal") };
        assert!(key.is_none() && !reset);
    }

    #[test]
    fn init_reads_numbers_and_leaves_judging_to_the_vault() {
        let body = serde_json::json!({"secret_shares": 5, "secret_threshold": "3"});
        let StatusRequest::Init { secret_shares, secret_threshold, pgp: false } =
            init(body.as_object().unwrap())
        else {
            panic!("not init")
        };
        assert_eq!((secret_shares, secret_threshold), (5, 3));
    }
}
