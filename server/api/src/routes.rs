//! The whole route table, on one screen.
//!
//! Routing is done on the canonical path, not on the bytes of the URL: there is no spelling of a path that
//! reaches something else than the policies looked at.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use coffer_vault::{Admission, Refusal, Request, StatusRequest};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Limited};
use serde_json::Map;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::forwarded::TrustedProxies;
use crate::parse::{self, Head, Unfit};
use crate::state::{Api, Peer};
use crate::{answer, events, json, rate, status};

/// The table.
async fn route(api: &Api, id: &str, parts: &mut Parts, body: Body) -> Result<Response, Unfit> {
    parse::declared_size(&parts.headers, api.limits.body_bytes_max)?;
    let path = parse::path(&parts.uri)?;
    let status = match (parts.method.as_str(), path.as_str()) {
        ("GET" | "HEAD", "sys/health") => status::health(&parse::query(&parts.uri)?)?,
        ("GET", "sys/seal-status") => StatusRequest::SealStatus,
        ("GET", "sys/leader") => StatusRequest::Leader,
        ("GET", "sys/ca") => StatusRequest::Ca,
        ("GET", "sys/init") => StatusRequest::InitStatus,
        ("PUT" | "POST", "sys/init") => status::init(&read(api, &parts.headers, body).await?.0),
        ("PUT" | "POST", "sys/unseal") => status::unseal(read(api, &parts.headers, body).await?.0),
        (_, "sys/health" | "sys/seal-status" | "sys/leader" | "sys/ca" | "sys/init" | "sys/unseal") => {
            return Err(Unfit::Method);
        }
        (method, place) => {
            let pattern = place.strip_prefix("sys/events/subscribe/").filter(|_| method == "GET");
            let pattern = pattern.map(|pattern| pattern.trim_end_matches('/').to_owned());
            let head = parse::head(&parts.method, &path, &parts.uri, &parts.headers)?;
            // After the size, before anything is parsed or looked up.
            let ip = client_ip(parts)?;
            let (info, over_limit) = match api.vault.admit(&head.path, ip, head.token.as_ref()) {
                Admission::Pass(info) => (info, false),
                Admission::Over(over) if over.unless_root => (over.info, true),
                Admission::Over(over) => return Ok(rate::refuse(api, id, parts, ip, over).await),
            };
            let admitted = Admitted { ip, over_limit };
            let response = match pattern {
                Some(pattern) => events::subscribe(api, id, parts, head, admitted, &pattern).await?,
                None => logical(api, id, parts, head, admitted, body).await?,
            };
            return Ok(rate::tell(response, info));
        }
    };
    let reply = api.vault.status(id, client_ip(parts)?, status).await;
    Ok(answer::status(reply))
}

/// Answers any request.
pub async fn respond(api: &Api, request: HttpRequest) -> Response {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
    let (mut parts, body) = request.into_parts();
    let response = match route(api, &id, &mut parts, body).await {
        Ok(response) => response,
        Err(why) => refuse(api, id, &parts, &why).await,
    };
    if parts.method == Method::HEAD { headers_only(response) } else { response }
}

/// The answer to `HEAD`: what `GET` would say of its length, and nothing of it.
fn headers_only(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response.map(|_| Body::empty())
}

/// A request that the rate limits let go on.
#[derive(Clone, Copy)]
pub(crate) struct Admitted {
    pub(crate) ip: IpAddr,
    pub(crate) over_limit: bool,
}

/// Whose request this is: the peer, or whom a trusted proxy names.
fn client_ip(parts: &Parts) -> Result<IpAddr, Unfit> {
    let peer = Peer::ip(&parts.extensions);
    match parts.extensions.get::<Arc<TrustedProxies>>() {
        Some(proxies) => proxies.client(peer, &parts.headers).map_err(Unfit::Forwarded),
        None => Ok(peer),
    }
}

/// What is on the catch-all path: the vault's own routes.
async fn logical(
    api: &Api,
    id: &str,
    parts: &Parts,
    head: Head,
    admitted: Admitted,
    body: Body,
) -> Result<Response, Unfit> {
    let body = if head.operation.writes() && parts.method != http::Method::DELETE {
        read(api, &parts.headers, body).await?
    } else {
        (Map::new(), None)
    };
    Ok(answer::audited(api.vault.handle(request(api, id, head, admitted, body)).await))
}

/// What the vault is given.
pub(crate) fn request(
    api: &Api,
    id: &str,
    head: Head,
    admitted: Admitted,
    (body, exact): json::Read,
) -> Request {
    Request {
        id: id.to_owned(),
        operation: head.operation,
        path: head.path,
        token: head.token,
        body,
        exact,
        query: head.query,
        wrap_ttl: head.wrap_ttl,
        over_limit: admitted.over_limit,
        client_ip: admitted.ip,
        received: api.clock.now(),
    }
}

/// Reads a body within its limits of size and time. Its bytes are scrubbed when they have been parsed.
async fn read(api: &Api, headers: &HeaderMap, body: Body) -> Result<json::Read, Unfit> {
    let max = api.limits.body_bytes_max;
    let mut body = Limited::new(body, max);
    // Starts large enough for most: growing leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 << 10));
    // Held until the body is parsed.
    let mut room = None::<SemaphorePermit<'_>>;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let too_large = error.is::<http_body_util::LengthLimitError>();
                if too_large { Unfit::TooLarge(max) } else { Unfit::CutOff }
            })?;
            if let Some(data) = frame.data_ref() {
                let more = api.bodies.take(data.len()).ok_or(Unfit::Crowded)?;
                match &mut room {
                    Some(room) => room.merge(more),
                    None => room = Some(more),
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok::<(), Unfit>(())
    };
    let limit = api.limits.body_time;
    timeout(limit, reading).await.map_err(|_| Unfit::Slow(limit.as_secs()))??;
    let parsed = if parse::is_form(headers, &bytes) {
        parse::form(&bytes).map(|fields| (fields, None))
    } else {
        Ok(json::object(&bytes)?)
    };
    drop(room);
    parsed
}

const METHOD_CHARS_MAX: usize = 16;

/// What never became a request is recorded and answered by the vault, too.
async fn refuse(api: &Api, id: String, parts: &Parts, why: &Unfit) -> Response {
    let refusal = Refusal {
        id,
        method: parts.method.as_str().chars().take(METHOD_CHARS_MAX).collect(),
        path: parts.uri.path().trim_start_matches("/v1/").to_owned(),
        // Where the proxy's word is not taken, the proxy is the client.
        client_ip: client_ip(parts).unwrap_or_else(|_| Peer::ip(&parts.extensions)),
        status: answer::unfit_status(why).as_u16(),
        message: why.to_string(),
    };
    answer::refused(api.vault.refuse(refusal).await)
}
