//! What a client is told about rate limits: `429`, and Vault's headers.

use std::net::IpAddr;

use axum::response::Response;
use coffer_vault::{RateInfo, Refusal, Reply, TooMany};
use http::request::Parts;
use http::{HeaderValue, header};

use crate::answer;
use crate::state::Api;

/// Says how much is left, where that is wanted.
pub(crate) fn tell(mut response: Response, info: Option<RateInfo>) -> Response {
    let Some(info) = info else { return response };
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(info.limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(info.remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(info.reset));
    response
}

/// A request over its limit. Recorded only where that was asked for: an overload must not become one of the log.
pub(crate) async fn refuse(api: &Api, id: &str, parts: &Parts, ip: IpAddr, over: TooMany) -> Response {
    const STATUS: u16 = 429;
    let response = if over.audited {
        let refusal = Refusal {
            id: id.to_owned(),
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().trim_start_matches("/v1/").to_owned(),
            client_ip: ip,
            status: STATUS,
            message: over.message,
        };
        answer::refused(api.vault.refuse(refusal).await)
    } else {
        answer::status(Reply::errors(STATUS, &[&over.message]))
    };
    let mut response = tell(response, over.info);
    if let Some(info) = over.info {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(info.reset));
    }
    response
}
