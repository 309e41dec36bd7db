//! What comes in and what goes out: the request and the reply.
//!
//! Transport-free: this module never sees HTTP, and decides nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use coffer_core::exact::Exact;
use coffer_core::time::Timestamp;
use coffer_core::token::Token;
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

/// What a caller wants done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// GET.
    Read,
    /// LIST, or GET with `?list=true`.
    List,
    /// SCAN, or GET with `?scan=true`.
    Scan,
    /// A write to something that does not exist yet. Never from outside: the vault decides between the two.
    Create,
    /// POST or PUT.
    Update,
    /// PATCH with a merge patch.
    Patch,
    /// DELETE.
    Delete,
}

impl Operation {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Self; 7] =
        [Self::Read, Self::List, Self::Scan, Self::Create, Self::Update, Self::Patch, Self::Delete];

    /// The word in audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Scan => "scan",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    /// Whether the operation may change something.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete)
    }
}

/// One request, parsed and within its limits, but not yet authenticated.
pub struct Request {
    /// Names the request in the reply and in the audit log.
    pub id: String,
    /// What to do.
    pub operation: Operation,
    /// The canonical path without `v1/` (text of a `VaultPath`). A trailing slash is kept only for LIST and SCAN.
    pub path: String,
    /// Who asks; none for login and the like.
    pub token: Option<Token>,
    /// The JSON body; empty if there was none.
    pub body: Map<String, Value>,
    /// The body with its numbers as they were written; only if `body` has one that is not so.
    pub exact: Option<Exact>,
    /// Query parameters.
    pub query: BTreeMap<String, String>,
    /// Put the reply away and answer with a token for it, which lives this long. Never zero.
    pub wrap_ttl: Option<Duration>,
    /// Over a rate limit that does not hold for root: refused to everybody else.
    pub over_limit: bool,
    /// Where it came from.
    pub client_ip: IpAddr,
    /// When its last byte arrived.
    pub received: Timestamp,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body may be a secret, the token is one.
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("operation", &self.operation)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.body.values_mut().for_each(scrub);
    }
}

/// A request that the transport refused before it became a [`Request`]: it is audited all the same.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Names the request in the audit log.
    pub id: String,
    /// The method as sent, shortened by the caller to something sane.
    pub method: String,
    /// The path as sent; cut by the audit log where it is too long.
    pub path: String,
    /// Where it came from.
    pub client_ip: IpAddr,
    /// The status it is answered with.
    pub status: u16,
    /// Why, as the client is told.
    pub message: String,
}

/// What a caller is told.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: ReplyBody,
    /// Where among the events this answer stands, for `X-Vault-Index`; where that is known.
    pub index: Option<String>,
}

/// The body of a reply.
pub enum ReplyBody {
    /// Nothing at all.
    Empty,
    /// A complete JSON body: an envelope, `{"errors": [...]}`, or one of Vault's unwrapped ones.
    Json(Value),
    /// The same, as bytes.
    Encoded(EncodedJson),
    /// Text of its own content type, such as metrics.
    Text {
        /// The content type.
        content_type: &'static str,
        /// The text.
        text: String,
    },
}

/// A JSON body that was put together from parts that were JSON already. Wiped when dropped.
pub struct EncodedJson {
    bytes: Zeroizing<Vec<u8>>,
    parsed: OnceLock<Value>,
}

impl EncodedJson {
    pub(crate) const fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { bytes, parsed: OnceLock::new() }
    }

    /// The bytes, to be sent; nothing is left.
    pub fn take(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.bytes)
    }

    fn value(&self) -> &Value {
        self.parsed.get_or_init(|| serde_json::from_slice(&self.bytes).unwrap_or_default())
    }
}

impl Drop for EncodedJson {
    fn drop(&mut self) {
        if let Some(value) = self.parsed.get_mut() {
            scrub(value);
        }
    }
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Json(_) => f.write_str("Json([redacted])"),
            Self::Encoded(_) => f.write_str("Encoded([redacted])"),
            Self::Text { content_type, .. } => write!(f, "Text({content_type})"),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if let Self::Json(value) = self {
            scrub(value);
        }
    }
}

impl Reply {
    /// `204`.
    pub const fn empty() -> Self {
        Self { status: 204, body: ReplyBody::Empty, index: None }
    }

    /// A JSON body.
    pub const fn json(status: u16, body: Value) -> Self {
        Self { status, body: ReplyBody::Json(body), index: None }
    }

    /// `{"errors": [...]}`.
    pub fn errors(status: u16, errors: &[&str]) -> Self {
        Self::json(status, serde_json::json!({ "errors": errors }))
    }

    /// The JSON body, if there is one.
    pub fn as_json(&self) -> Option<&Value> {
        match &self.body {
            ReplyBody::Json(value) => Some(value),
            ReplyBody::Encoded(encoded) => Some(encoded.value()),
            ReplyBody::Empty | ReplyBody::Text { .. } => None,
        }
    }
}

/// The closed list of requests that are answered whether or not the audit log can be written.
#[derive(Debug)]
pub enum StatusRequest {
    /// `GET|HEAD sys/health`.
    Health(HealthParams),
    /// `GET sys/seal-status`.
    SealStatus,
    /// `GET sys/leader`.
    Leader,
    /// `PUT sys/init`.
    Init {
        /// How many shares to make.
        secret_shares: u64,
        /// How many of them unseal.
        secret_threshold: u64,
        /// Keys or token were asked for encrypted for PGP, which is refused.
        pgp: bool,
    },
    /// `GET sys/init`.
    InitStatus,
    /// `PUT sys/unseal`.
    Unseal {
        /// One share, in hex or base64.
        key: Option<coffer_core::secret::SecretString>,
        /// Forget the shares given so far.
        reset: bool,
    },
    /// `GET sys/ca`.
    Ca,
}

/// Query parameters of `sys/health`: which status to answer in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthParams {
    /// `activecode`: instead of 200.
    pub active_code: Option<u16>,
    /// `sealedcode`: instead of 503.
    pub sealed_code: Option<u16>,
    /// `uninitcode`: instead of 501.
    pub uninit_code: Option<u16>,
}

/// Overwrites every string in a JSON value: bodies and replies may hold secrets.
pub fn scrub(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Object(map) => map.values_mut().for_each(scrub),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
