//! What a handler gives back, and how it becomes a reply in Vault's shapes.

use coffer_core::policy::PolicyName;
use coffer_core::secret::SecretBytes;
use coffer_core::token::{Token, TokenHash};
use std::sync::Arc;

use coffer_engines::{Encoded, EngineReply};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::events::Draft;
use crate::request::{EncodedJson, Reply, ReplyBody};
use crate::token::TokenEntry;

/// What was done, not yet audited.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) body: Body,
    pub(crate) warnings: Vec<String>,
    /// What the audit record names as the lease.
    pub(crate) lease_id: Option<String>,
    /// What is published once the record is written.
    pub(crate) events: Vec<Draft>,
    /// What is taken back if the record cannot be written.
    pub(crate) undo: Option<Undo>,
    /// Whom a login was; for the audit record.
    pub(crate) identity: Option<TokenEntry>,
    /// The vault is to be sealed once the record is written.
    pub(crate) seal: bool,
    /// What is read is at least as new as this position among the events.
    pub(crate) index: Option<String>,
}

/// Something issued that must not survive a record that could not be written.
pub(crate) enum Undo {
    Lease(String),
    Token(TokenHash),
    /// Both, in this order.
    Both(Box<Undo>, Box<Undo>),
}

/// The body to be.
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// An envelope with data.
    Data(Value),
    /// The same, with data that is JSON already.
    Encoded(Arc<Encoded>),
    /// An envelope whose data stands at the top level too, as old clients want it.
    Doubled(Map<String, Value>),
    /// The same, with a life that its writer gave it.
    Lasting { json: SecretBytes, seconds: u64 },
    /// An envelope with a lease.
    Leased { data: Value, lease_id: String, seconds: u64, renewable: bool },
    /// An envelope with a token.
    Auth(Value),
    /// Already complete.
    Raw(Value),
    /// Already complete, and JSON already.
    Whole(Zeroizing<Vec<u8>>),
    /// An envelope with nothing but the token of a reply that was put away.
    Wrapped(Value),
    /// Text of its own content type.
    Text { content_type: &'static str, text: String },
}

impl Outcome {
    fn of(status: u16, body: Body) -> Self {
        Self {
            status,
            body,
            warnings: Vec::new(),
            lease_id: None,
            events: Vec::new(),
            undo: None,
            identity: None,
            seal: false,
            index: None,
        }
    }

    /// `204`.
    pub(crate) fn empty() -> Self {
        Self::of(204, Body::Empty)
    }

    /// `200` with data.
    pub(crate) fn data(data: Value) -> Self {
        Self::of(200, Body::Data(data))
    }

    /// `200` with data that is JSON already.
    pub(crate) fn encoded(data: Arc<Encoded>) -> Self {
        Self::of(200, Body::Encoded(data))
    }

    /// `200` with an object that is JSON already.
    pub(crate) fn json(json: SecretBytes) -> Self {
        Self::encoded(Arc::new(Encoded { json, until: None }))
    }

    /// `200` with a body that is complete, and JSON already.
    pub(crate) fn whole(json: Zeroizing<Vec<u8>>) -> Self {
        Self::of(200, Body::Whole(json))
    }

    /// `200` with data in both places.
    pub(crate) fn doubled(data: Map<String, Value>) -> Self {
        Self::of(200, Body::Doubled(data))
    }

    /// `200` with names, or `404` if there is none.
    pub(crate) fn list(names: Vec<String>) -> Self {
        if names.is_empty() { Self::not_found() } else { Self::data(json!({ "keys": names })) }
    }

    /// `404` without a message.
    pub(crate) fn not_found() -> Self {
        Self::of(404, Body::Raw(json!({ "errors": [] })))
    }

    /// `200` with a lease.
    pub(crate) fn leased(data: Value, lease_id: &str, seconds: u64, renewable: bool) -> Self {
        let body = Body::Leased { data, lease_id: lease_id.to_owned(), seconds, renewable };
        Self { lease_id: Some(lease_id.to_owned()), ..Self::of(200, body) }
    }

    /// `200` with a token. `token` is none for a renewal by accessor, which must not show it.
    pub(crate) fn auth(entry: &TokenEntry, token: Option<&Token>, seconds: u64) -> Self {
        let mut auth = json!({
            "client_token": token.map_or("", Token::expose),
            "accessor": entry.shown_accessor(),
            "policies": entry.policies,
            "token_policies": entry.policies,
            "metadata": if entry.metadata.is_empty() { Value::Null } else { json!(entry.metadata) },
            "lease_duration": seconds,
            "renewable": entry.renewable,
            "entity_id": entry.entity.as_deref().unwrap_or_default(),
            "token_type": entry.kind.as_str(),
            "orphan": entry.ancestors.is_empty(),
            "mfa_requirement": null,
            "num_uses": entry.uses_left.unwrap_or(0),
        });
        if let Value::Object(map) = &mut auth
            && entry.policies.is_empty()
        {
            // What has no policies of its own does not say so.
            map.remove("token_policies");
        }
        Self { identity: Some(entry.clone()), ..Self::of(200, Body::Auth(auth)) }
    }

    /// `200` with a body that is complete already.
    pub(crate) fn raw(body: Value) -> Self {
        Self::of(200, Body::Raw(body))
    }

    /// `200` with `wrap_info`.
    pub(crate) fn wrapped(info: Value) -> Self {
        Self::of(200, Body::Wrapped(info))
    }

    /// Whether there is a reply that could be put away: a success with an envelope, and not one that is wrapped already.
    pub(crate) const fn can_be_wrapped(&self) -> bool {
        let enveloped = matches!(
            self.body,
            Body::Data(_)
                | Body::Encoded(_)
                | Body::Doubled(_)
                | Body::Lasting { .. }
                | Body::Leased { .. }
                | Body::Auth(_)
        );
        enveloped && self.status < 300
    }

    /// With the policies that the token has from its entity, which count besides its own.
    #[must_use]
    pub(crate) fn with_identity_policies(mut self, names: &[PolicyName]) -> Self {
        if let (Body::Auth(auth), false) = (&mut self.body, names.is_empty()) {
            let mut all: Vec<String> = serde_json::from_value(auth["policies"].clone()).unwrap_or_default();
            all.extend(names.iter().map(|name| name.as_str().to_owned()));
            all.sort();
            all.dedup();
            auth["policies"] = json!(all);
            auth["identity_policies"] = json!(names);
        }
        self
    }

    /// `200` with text.
    pub(crate) fn text(content_type: &'static str, text: String) -> Self {
        Self::of(200, Body::Text { content_type, text })
    }

    /// With what the client should know. What has no room for it gets an envelope without data.
    #[must_use]
    pub(crate) fn warning(mut self, warnings: Vec<String>) -> Self {
        if matches!(self.body, Body::Empty | Body::Raw(_)) && !warnings.is_empty() {
            if self.status == 204 {
                self.status = 200;
            }
            self.body = Body::Data(Value::Null);
        }
        self.warnings.extend(warnings);
        self
    }

    /// With the vault to be sealed after it.
    #[must_use]
    pub(crate) fn sealing(mut self) -> Self {
        self.seal = true;
        self
    }

    /// With what is to be published.
    #[must_use]
    pub(crate) fn publishing(mut self, event: Draft) -> Self {
        self.events.push(event);
        self
    }

    /// From an engine's answer; `None` for an `Issue`, which is the lease room's work, and for a life that nobody has
    /// decided about.
    pub(crate) fn from_engine(reply: EngineReply) -> Option<Self> {
        Some(match reply {
            EngineReply::Data(data) => Self::data(Value::Object(data)),
            EngineReply::Encoded(data) => Self::encoded(Arc::new(data)),
            EngineReply::Lasting { json, seconds } => {
                Self::of(200, Body::Lasting { json, seconds: seconds? })
            }
            EngineReply::Empty => Self::empty(),
            EngineReply::Missing => Self::of(404, Body::Empty),
            EngineReply::NotFound => Self::not_found(),
            EngineReply::NotFoundWith(data) => Self::of(404, Body::Data(Value::Object(data))),
            EngineReply::List(names) => Self::list(names),
            EngineReply::Issue(_) => return None,
            EngineReply::Warn(inner, warnings) => Self::from_engine(*inner)?.warning(warnings),
        })
    }

    /// The reply, in its envelope.
    pub(crate) fn into_reply(mut self, request_id: &str) -> Reply {
        let index = self.index.take();
        Reply { index, ..self.without_index(request_id) }
    }

    fn without_index(self, request_id: &str) -> Reply {
        let status = self.status;
        let mut envelope = Envelope { request_id, warnings: &self.warnings };
        match self.body {
            Body::Empty => Reply { status, body: ReplyBody::Empty, index: None },
            Body::Raw(mut value) => {
                if let (Value::Object(map), false) = (&mut value, self.warnings.is_empty()) {
                    map.insert("warnings".into(), json!(self.warnings));
                }
                Reply::json(status, value)
            }
            Body::Wrapped(info) => {
                let mut whole = Envelope { request_id: "", warnings: &self.warnings }.with(
                    "",
                    0,
                    false,
                    Value::Null,
                    Value::Null,
                );
                whole["wrap_info"] = info;
                Reply::json(status, whole)
            }
            Body::Text { content_type, text } => {
                Reply { status, body: ReplyBody::Text { content_type, text }, index: None }
            }
            Body::Data(data) => Reply::json(status, envelope.with("", 0, false, data, Value::Null)),
            Body::Encoded(data) => {
                let body = EncodedJson::new(envelope.around(0, data.json.expose()));
                Reply { status, body: ReplyBody::Encoded(body), index: None }
            }
            Body::Lasting { json, seconds } => {
                let body = EncodedJson::new(envelope.around(seconds, json.expose()));
                Reply { status, body: ReplyBody::Encoded(body), index: None }
            }
            Body::Whole(json) => {
                Reply { status, body: ReplyBody::Encoded(EncodedJson::new(json)), index: None }
            }
            Body::Doubled(data) => {
                let mut whole = envelope.with("", 0, false, Value::Object(data.clone()), Value::Null);
                if let Value::Object(map) = &mut whole {
                    map.extend(data);
                }
                Reply::json(status, whole)
            }
            Body::Leased { data, lease_id, seconds, renewable } => {
                Reply::json(status, envelope.with(&lease_id, seconds, renewable, data, Value::Null))
            }
            Body::Auth(auth) => Reply::json(status, envelope.with("", 0, false, Value::Null, auth)),
        }
    }
}

struct Envelope<'a> {
    request_id: &'a str,
    warnings: &'a [String],
}

impl Envelope<'_> {
    fn with(&mut self, lease_id: &str, seconds: u64, renewable: bool, data: Value, auth: Value) -> Value {
        let warnings = if self.warnings.is_empty() { Value::Null } else { json!(self.warnings) };
        let mut map = Map::new();
        // Built by moves: `json!` would copy the data, and a copy of a secret is one to wipe.
        map.insert("request_id".into(), self.request_id.into());
        map.insert("lease_id".into(), lease_id.into());
        map.insert("renewable".into(), renewable.into());
        map.insert("lease_duration".into(), seconds.into());
        map.insert("data".into(), data);
        map.insert("wrap_info".into(), Value::Null);
        map.insert("warnings".into(), warnings);
        map.insert("auth".into(), auth);
        Value::Object(map)
    }

    /// The whole body around data that is JSON already.
    fn around(&self, seconds: u64, data: &[u8]) -> Zeroizing<Vec<u8>> {
        let id = json!(self.request_id).to_string();
        let warnings = if self.warnings.is_empty() { Value::Null } else { json!(self.warnings) }.to_string();
        let seconds = seconds.to_string();
        let parts = [
            br#"{"request_id":"#,
            id.as_bytes(),
            br#","lease_id":"","renewable":false,"lease_duration":"#,
            seconds.as_bytes(),
            br#","data":"#,
            data,
            br#","wrap_info":null,"warnings":"#,
            warnings.as_bytes(),
            b",\"auth\":null}\n",
        ];
        // Exactly as large as needed: growing would leave a copy of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }
}
