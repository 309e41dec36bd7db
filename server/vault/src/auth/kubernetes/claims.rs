//! What a ServiceAccount's token says beyond what every token does: who it belongs to.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::auth::jose::{Claims, Leeway, Refused};

/// How far the clocks of the cluster and of this server may be apart. A token that is over is over.
pub(super) const LEEWAY: Leeway =
    Leeway { late: Duration::ZERO, early: Duration::from_secs(30), unstated: None, endless: None };

/// The part that Kubernetes adds.
#[derive(Clone, Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    #[serde(default)]
    pod: Option<Named>,
}

#[derive(Clone, Debug, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// Who a verified token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) service_account_uid: String,
    /// Name and UID.
    pub(super) pod: Option<(String, String)>,
}

/// The identity in a token that is believed.
pub(super) fn identity(mut claims: Claims) -> Result<Identity, Refused> {
    const NO_ACCOUNT: Refused = Refused("the JWT is not of a ServiceAccount");
    let kubernetes = claims.remove("kubernetes.io").ok_or(NO_ACCOUNT)?;
    let Kubernetes { namespace, serviceaccount, pod } =
        serde_json::from_value(kubernetes).map_err(|_| NO_ACCOUNT)?;
    let subject = format!("system:serviceaccount:{namespace}:{}", serviceaccount.name);
    if claims.get("sub").and_then(Value::as_str) != Some(&subject) {
        return Err(Refused("the JWT contradicts itself about its subject"));
    }
    let plain = |text: &str| {
        let good = |c: u8| c.is_ascii_alphanumeric() || b"-.".contains(&c);
        !text.is_empty() && text.len() <= 253 && text.bytes().all(good)
    };
    let pod_fine = pod.as_ref().is_none_or(|p| plain(&p.name) && plain(&p.uid));
    if !plain(&namespace) || !plain(&serviceaccount.name) || !plain(&serviceaccount.uid) || !pod_fine {
        return Err(Refused("the JWT has a name that Kubernetes would not give"));
    }
    Ok(Identity {
        namespace,
        service_account: serviceaccount.name,
        service_account_uid: serviceaccount.uid,
        pod: pod.map(|p| (p.name, p.uid)),
    })
}
