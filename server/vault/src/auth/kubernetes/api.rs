//! What a cluster's API server is asked: whether a token still is good, and which labels a namespace has.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::claims::Identity;
use super::config::Config;
use crate::deps::{ApiCall, ApiReply, ApiServer, Credential};
use crate::error::Fail;
use crate::open::Open;

/// Where the pod of a token is in `extra`.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

impl Config {
    /// How the API server is asked. Without a credential of the vault's, the token that is presented is its own.
    fn api_server(&self, presented: &str) -> ApiServer {
        let credential = match &self.reviewer_jwt {
            Some(jwt) => Credential::Given(jwt.clone()),
            None if self.disable_local => Credential::Given(Zeroizing::new(presented.to_owned())),
            None => Credential::Own,
        };
        ApiServer {
            host: self.host.clone(),
            ca_pem: self.ca_pem.clone(),
            own_ca: !self.disable_local,
            credential,
        }
    }

    /// Whether the caller's own token is what the API server is asked with.
    const fn asks_as_the_caller(&self) -> bool {
        self.reviewer_jwt.is_none() && self.disable_local
    }
}

/// The API server believes the token, for this audience, and says of its owner what the token says.
pub(super) async fn review(
    open: &Open,
    config: &Config,
    jwt: &str,
    audience: &str,
    identity: &Identity,
) -> Result<(), Fail> {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": { "token": jwt, "audiences": [audience] },
    });
    let call = ApiCall {
        path: "/apis/authentication.k8s.io/v1/tokenreviews".to_owned(),
        body: Some(Zeroizing::new(body.to_string())),
    };
    let reply = asked(open, config, jwt, &call).await?;
    check_review(&reply.body, audience, identity)
}

/// A review's reply believes the token, for this audience, and says of its owner what the token says.
pub(super) fn check_review(body: &str, audience: &str, identity: &Identity) -> Result<(), Fail> {
    let review: Value = serde_json::from_str(body).map_err(|_| unavailable("not a TokenReview"))?;
    // `authentication.k8s.io/v1`. What is not there is not so.
    let status = &review["status"];
    if status["authenticated"] != true {
        return Err(Fail::Login("lookup failed: the API server does not believe the JWT"));
    }
    // An API server that does not say for whom it believes the token believes it for itself.
    if !texts(&status["audiences"]).any(|known| known == audience) {
        return Err(Fail::Login("lookup failed: the API server does not believe the JWT for this audience"));
    }
    let user = &status["user"];
    let name = format!("system:serviceaccount:{}:{}", identity.namespace, identity.service_account);
    if user["username"] != name || user["uid"] != identity.service_account_uid {
        return Err(Fail::Login("lookup failed: the API server knows the JWT's owner by another name"));
    }
    let other = |uid: &Value| identity.pod.as_ref().is_none_or(|(_, own)| uid != own);
    if user["extra"][POD_UID].as_array().is_some_and(|pods| pods.iter().any(other)) {
        return Err(Fail::Login("lookup failed: the API server knows the JWT's pod by another UID"));
    }
    Ok(())
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The labels of a namespace.
pub(super) async fn namespace_labels(
    open: &Open,
    config: &Config,
    jwt: &str,
    namespace: &str,
) -> Result<BTreeMap<String, String>, Fail> {
    // The name was checked: it cannot lead to another path.
    let call = ApiCall { path: format!("/api/v1/namespaces/{namespace}"), body: None };
    let reply = asked(open, config, jwt, &call).await?;
    labels(&reply.body)
}

/// The labels that a Namespace has.
pub(super) fn labels(body: &str) -> Result<BTreeMap<String, String>, Fail> {
    let wrong = || unavailable("not a Namespace");
    let found: Value = serde_json::from_str(body).map_err(|_| wrong())?;
    let metadata = found["metadata"].as_object().ok_or_else(wrong)?;
    let labels = metadata.get("labels").cloned().unwrap_or_else(|| json!({}));
    serde_json::from_value(labels).map_err(|_| wrong())
}

async fn asked(open: &Open, config: &Config, jwt: &str, call: &ApiCall) -> Result<ApiReply, Fail> {
    let server = config.api_server(jwt);
    let reply = open.around.keys.ask(&server, call).await.map_err(|why| unavailable(&why))?;
    match reply.status {
        200 | 201 => Ok(reply),
        // It is the caller who is not known there.
        401 | 403 if config.asks_as_the_caller() => {
            Err(Fail::Login("lookup failed: the API server does not answer this ServiceAccount"))
        }
        404 => Err(Fail::Login("lookup failed: the API server knows no such namespace")),
        status => Err(unavailable(&format!("status {status}"))),
    }
}

fn unavailable(why: &str) -> Fail {
    tracing::warn!(why, "the API server of a cluster could not be asked");
    Fail::Unavailable("the cluster's API server could not be asked".into())
}
