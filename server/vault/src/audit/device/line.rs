//! The lines of a device, in Vault's form: one `request` before, one `response` after.
//!
//! Strings of bodies and all tokens and accessors are covered by the device's salt, but for the keys that the mount's
//! tuning names; paths, policies, the display name, the token's metadata and error messages stand as they are, as in Vault.

use coffer_core::time::Timestamp;
use serde_json::{Map, Value, json};

use super::salt::Salt;
use crate::request::{Operation, Reply, Request};
use crate::token::TokenEntry;

/// Which mount a request went to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountFacts {
    /// With `auth/`, and a slash at the end.
    pub(crate) point: String,
    pub(crate) kind: String,
    pub(crate) accessor: String,
    /// `auth` or `secret`.
    pub(crate) class: &'static str,
    /// Keys whose texts stand as they are, by the mount's tuning: of requests, and of responses.
    pub(crate) clear_request: Vec<String>,
    pub(crate) clear_response: Vec<String>,
}

/// What a line is made of.
pub(crate) struct Facts<'a> {
    pub(crate) time: Timestamp,
    pub(crate) request: &'a Request,
    pub(crate) caller: Option<&'a TokenEntry>,
    pub(crate) mount: Option<&'a MountFacts>,
    pub(crate) allowed: bool,
    pub(crate) error: Option<&'a str>,
    /// None before the effect.
    pub(crate) reply: Option<&'a Reply>,
}

/// What a device's options say about its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) hmac_accessor: bool,
    /// Lists are counted instead of spelled out.
    pub(crate) elide_lists: bool,
}

impl Facts<'_> {
    /// The line, with its end.
    pub(crate) fn line(&self, salt: &Salt, style: Style) -> Option<Vec<u8>> {
        let mut map = Map::new();
        map.insert("time".into(), self.time.to_rfc3339().into());
        map.insert("type".into(), if self.reply.is_some() { "response" } else { "request" }.into());
        map.insert("auth".into(), self.auth(salt, style));
        map.insert("request".into(), self.request(salt, style));
        if let Some(reply) = self.reply {
            map.insert("response".into(), self.response(reply, salt, style));
        }
        if let Some(error) = self.error {
            map.insert("error".into(), error.into());
        }
        let mut line = serde_json::to_vec(&map).ok()?;
        line.push(b'\n');
        Some(line)
    }

    fn auth(&self, salt: &Salt, style: Style) -> Value {
        let Some(entry) = self.caller else { return json!({ "token_type": "default" }) };
        let mut auth = Map::new();
        if let Some(token) = &self.request.token {
            auth.insert("client_token".into(), salt.identify(token.expose()).into());
        }
        auth.insert("accessor".into(), accessor(entry.accessor.as_str(), salt, style));
        auth.insert("display_name".into(), entry.display_name.as_str().into());
        auth.insert("policies".into(), json!(entry.policies));
        auth.insert("token_policies".into(), json!(entry.policies));
        auth.insert("policy_results".into(), json!({ "allowed": self.allowed }));
        if !entry.metadata.is_empty() {
            auth.insert("metadata".into(), json!(entry.metadata));
        }
        auth.insert("token_type".into(), "service".into());
        if !entry.ttl.is_zero() {
            auth.insert("token_ttl".into(), entry.ttl.as_secs().into());
        }
        auth.insert("token_issue_time".into(), entry.created.to_rfc3339().into());
        Value::Object(auth)
    }

    fn request(&self, salt: &Salt, style: Style) -> Value {
        let request = self.request;
        let mut map = Map::new();
        map.insert("id".into(), request.id.as_str().into());
        map.insert("operation".into(), request.operation.as_str().into());
        self.put_mount(&mut map);
        if let Some(token) = &request.token {
            map.insert("client_token".into(), salt.identify(token.expose()).into());
        }
        if let Some(entry) = self.caller {
            map.insert("client_token_accessor".into(), accessor(entry.accessor.as_str(), salt, style));
        }
        map.insert("namespace".into(), json!({ "id": "root" }));
        map.insert("path".into(), request.path.as_str().into());
        let clear = self.mount.map_or(&[][..], |mount| &mount.clear_request);
        let data = if request.body.is_empty() {
            let query =
                request.query.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
            salt.cover_map(&query, clear)
        } else {
            salt.cover_map(&request.body, clear)
        };
        if !data.is_empty() {
            map.insert("data".into(), Value::Object(data));
        }
        map.insert("remote_address".into(), request.client_ip.to_string().into());
        Value::Object(map)
    }

    fn put_mount(&self, map: &mut Map<String, Value>) {
        let Some(mount) = self.mount else { return };
        map.insert("mount_point".into(), mount.point.as_str().into());
        map.insert("mount_type".into(), mount.kind.as_str().into());
        if !mount.accessor.is_empty() {
            map.insert("mount_accessor".into(), mount.accessor.as_str().into());
        }
        map.insert("mount_class".into(), mount.class.into());
    }

    fn response(&self, reply: &Reply, salt: &Salt, style: Style) -> Value {
        let mut map = Map::new();
        let body = reply.as_json().and_then(Value::as_object);
        let of = |key: &str| body.and_then(|body| body.get(key)).filter(|value| !value.is_null());
        if let Some(Value::Object(auth)) = of("auth") {
            map.insert("auth".into(), issued(auth, salt, style));
        }
        if let Some(lease) = of("lease_id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            map.insert("secret".into(), json!({ "lease_id": lease }));
        }
        self.put_mount(&mut map);
        let enveloped = body.is_some_and(|body| body.contains_key("request_id"));
        match (of("data"), body) {
            (Some(data), _) => {
                map.insert("data".into(), self.data(data, salt, style));
            }
            // A body of its own, such as a status; not an error, which stands beside.
            (None, Some(body)) if !enveloped && !body.contains_key("errors") => {
                map.insert("data".into(), Value::Object(salt.cover_map(body, self.clear_response())));
            }
            _ => {}
        }
        if let Some(Value::Object(wrapped)) = of("wrap_info") {
            map.insert("wrap_info".into(), wrapping(wrapped, salt, style));
        }
        if let Some(warnings) = of("warnings") {
            map.insert("warnings".into(), warnings.clone());
        }
        Value::Object(map)
    }

    fn clear_response(&self) -> &[String] {
        self.mount.map_or(&[], |mount| &mount.clear_response)
    }

    fn data(&self, data: &Value, salt: &Salt, style: Style) -> Value {
        let clear = self.clear_response();
        let lists = matches!(self.request.operation, Operation::List | Operation::Scan);
        if !(style.elide_lists && lists) {
            return salt.cover(data, clear);
        }
        let Value::Object(map) = data else { return salt.cover(data, clear) };
        let mut short = salt.cover_map(map, clear);
        for (key, value) in &mut short {
            match (key.as_str(), &value) {
                ("keys", Value::Array(items)) => *value = items.len().into(),
                ("key_info", Value::Object(infos)) => *value = infos.len().into(),
                _ => {}
            }
        }
        Value::Object(short)
    }
}

fn accessor(accessor: &str, salt: &Salt, style: Style) -> Value {
    if style.hmac_accessor { salt.identify(accessor).into() } else { accessor.into() }
}

/// A token that is handed out.
fn issued(auth: &Map<String, Value>, salt: &Salt, style: Style) -> Value {
    let mut map = Map::new();
    for (key, value) in auth {
        let shown = match (key.as_str(), value) {
            (_, Value::Null) => continue,
            ("client_token", Value::String(token)) if token.is_empty() => continue,
            ("client_token", Value::String(token)) => salt.identify(token).into(),
            ("accessor", Value::String(text)) => accessor(text, salt, style),
            ("policies" | "token_policies" | "metadata" | "token_type" | "entity_id", value) => value.clone(),
            ("lease_duration", value) => {
                map.insert("token_ttl".into(), value.clone());
                continue;
            }
            _ => continue,
        };
        map.insert(key.clone(), shown);
    }
    Value::Object(map)
}

fn wrapping(wrapped: &Map<String, Value>, salt: &Salt, style: Style) -> Value {
    let shown = wrapped.iter().map(|(key, value)| {
        let value = match (key.as_str(), value) {
            ("token", Value::String(token)) => salt.identify(token).into(),
            ("accessor" | "wrapped_accessor", Value::String(text)) => accessor(text, salt, style),
            // Times and the path it was created at.
            ("ttl" | "creation_time" | "creation_path", value) => value.clone(),
            (_, value) => salt.cover(value, &[]),
        };
        (key.clone(), value)
    });
    Value::Object(shown.collect())
}
