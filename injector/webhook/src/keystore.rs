//! The Secret the certificates are kept in, shared by the replicas. Whoever writes first wins; the
//! others read what he wrote. Never deletes it.

use crate::certs::{Pair, Stored};
use anyhow::Context;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const SERVE_FROM: &str = "coffer.dev/serve-from";
const NOT_AFTER: &str = "coffer.dev/not-after";

/// What was found, with the version a successor must replace.
pub(crate) struct Kept {
    pub(crate) stored: Option<Stored>,
    resource_version: String,
}

/// The Secret, by name.
pub(crate) struct Keystore {
    api: Api<Secret>,
    name: String,
}

impl Keystore {
    pub(crate) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    pub(crate) async fn load(&self) -> anyhow::Result<Option<Kept>> {
        let secret =
            self.api.get_opt(&self.name).await.with_context(|| format!("read Secret {}", self.name))?;
        Ok(secret.map(|secret| Kept {
            resource_version: secret.metadata.resource_version.clone().unwrap_or_default(),
            stored: read(&secret),
        }))
    }

    /// Writes what follows `former`. False if somebody else was faster.
    pub(crate) async fn save(&self, stored: &Stored, former: Option<&Kept>) -> anyhow::Result<bool> {
        let mut secret = write(&self.name, stored);
        let params =
            PostParams { field_manager: Some("coffer-injector".to_owned()), ..PostParams::default() };
        let outcome = match former {
            None => self.api.create(&params, &secret).await,
            Some(kept) => {
                secret.metadata.resource_version = Some(kept.resource_version.clone());
                self.api.replace(&self.name, &params, &secret).await
            }
        };
        match outcome {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).with_context(|| format!("write Secret {}", self.name)),
        }
    }
}

pub(crate) fn read(secret: &Secret) -> Option<Stored> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| data.get(key).and_then(|b| String::from_utf8(b.0.clone()).ok());
    let number = |key: &str| secret.metadata.annotations.as_ref()?.get(key)?.parse().ok();
    let pair = |cert: &str, key: &str| Some(Pair { cert: text(cert)?, key: Zeroizing::new(text(key)?) });
    Some(Stored {
        ca_bundle: text("ca.crt")?,
        current: pair("tls.crt", "tls.key")?,
        previous: pair("previous.crt", "previous.key"),
        serve_from: number(SERVE_FROM)?,
        not_after: number(NOT_AFTER)?,
    })
}

pub(crate) fn write(name: &str, stored: &Stored) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = BTreeMap::from([
        ("ca.crt".to_owned(), bytes(&stored.ca_bundle)),
        ("tls.crt".to_owned(), bytes(&stored.current.cert)),
        ("tls.key".to_owned(), bytes(&stored.current.key)),
    ]);
    if let Some(previous) = &stored.previous {
        data.insert("previous.crt".to_owned(), bytes(&previous.cert));
        data.insert("previous.key".to_owned(), bytes(&previous.key));
    }
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some(BTreeMap::from([
                (SERVE_FROM.to_owned(), stored.serve_from.to_string()),
                (NOT_AFTER.to_owned(), stored.not_after.to_string()),
            ])),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/managed-by".to_owned(),
                "coffer-injector".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::mint;

    #[test]
    fn what_is_written_reads_back() {
        let names = ["a.b.svc".to_owned()];
        let first = mint(&names, 1_800_000_000, None).unwrap();
        let second = mint(&names, 1_806_000_000, Some(&first)).unwrap();
        for stored in [first, second] {
            assert_eq!(read(&write("x", &stored)).as_ref(), Some(&stored));
        }
    }

    #[test]
    fn a_secret_of_somebody_else_reads_as_none() {
        assert_eq!(read(&Secret::default()), None);
    }
}
