//! The one place where an outcome becomes HTTP: status, headers, bytes.
//!
//! A vault's reply only gets here audited, or as one of the closed list of status replies.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use coffer_vault::{Audited, Reply, ReplyBody};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use zeroize::Zeroizing;

use crate::parse::Unfit;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Where an answer stands among the events; see `?wait=` and `?after=`.
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What the vault answered, once its audit record is written.
pub(crate) fn audited(reply: Audited<Reply>) -> Response {
    plain(reply.into_inner())
}

/// A status reply: health, seal status and the few others that need no audit record.
pub(crate) fn status(reply: Reply) -> Response {
    plain(reply)
}

/// A request that could not be understood, once that is recorded.
pub(crate) fn refused(reply: Audited<Reply>) -> Response {
    let mut response = audited(reply);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("GET, LIST, SCAN, POST, PUT, PATCH, DELETE");
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// The status of what is refused here.
pub(crate) fn unfit_status(why: &Unfit) -> StatusCode {
    match why {
        Unfit::Body(_)
        | Unfit::Code(_)
        | Unfit::CutOff
        | Unfit::Form
        | Unfit::Forwarded(_)
        | Unfit::LongToken
        | Unfit::Path(_)
        | Unfit::Query
        | Unfit::SlashWrite
        | Unfit::Wrapping(_) => StatusCode::BAD_REQUEST,
        Unfit::Token => StatusCode::FORBIDDEN,
        Unfit::Namespace | Unfit::NoRoute => StatusCode::NOT_FOUND,
        Unfit::Method => StatusCode::METHOD_NOT_ALLOWED,
        Unfit::Crowded => StatusCode::SERVICE_UNAVAILABLE,
        Unfit::Slow(_) => StatusCode::REQUEST_TIMEOUT,
        Unfit::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Unfit::PatchType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    }
}

/// The start of an event stream: one JSON object a line for as long as it lasts.
pub(crate) fn stream(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

fn plain(mut reply: Reply) -> Response {
    let index = reply.index.take().and_then(|index| HeaderValue::from_str(&index).ok());
    let mut response = of(reply);
    if let Some(index) = index {
        response.headers_mut().insert(INDEX, index);
    }
    response
}

fn of(mut reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match &mut reply.body {
        ReplyBody::Encoded(encoded) => build(status, Some(JSON), Bytes::from_owner(encoded.take())),
        // As in Vault, also where there is nothing of that type.
        ReplyBody::Empty => build(status, Some(JSON), Bytes::new()),
        ReplyBody::Json(value) => {
            // The bytes are scrubbed once the connection has let go of them. The size is a guess that
            // spares most replies from growing, which would leave copies behind.
            let mut text = Zeroizing::new(Vec::with_capacity(4 << 10));
            match serde_json::to_writer(&mut *text, value) {
                Ok(()) => {
                    text.push(b'\n');
                    build(status, Some(JSON), Bytes::from_owner(text))
                }
                Err(_) => build(StatusCode::INTERNAL_SERVER_ERROR, Some(JSON), Bytes::from_static(ENCODING)),
            }
        }
        ReplyBody::Text { content_type, text } => {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            build(status, Some(HeaderValue::from_static(content_type)), bytes)
        }
    }
}

const ENCODING: &[u8] = br#"{"errors":["internal error: the reply could not be encoded"]}"#;

fn build(status: StatusCode, content_type: Option<HeaderValue>, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}
