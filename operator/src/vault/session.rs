//! Sessions at the server: one login for each CofferConnection, renewed while it lasts. Never stores a token anywhere
//! but in this process's memory.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coffer_client::wire::{Auth, Disclose};
use coffer_client::{Client, ClientError, Limits};
use coffer_crds::CofferConnection;
use kube::ResourceExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{Error, NotConnected, brief, says_sealed};
use crate::names::Names;

/// Limits of a call. Shorter than the agent's: a reconcile that fails is repeated, and a finalizer has a deadline.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(3),
    call: Duration::from_secs(10),
    stream_idle: Duration::from_secs(45),
    body_bytes_max: 16 << 20,
    idle_connections_max: 4,
    retries: 0,
};

/// A client for a CofferConnection, without a token.
pub(crate) fn client_for(address: &str, ca_pem: &str) -> Result<Client, ClientError> {
    Client::builder(address).ca_pem(ca_pem).limits(LIMITS).build()
}

/// A usable connection to a vault.
#[derive(Clone, Debug)]
pub(crate) struct Vault {
    /// Client with the operator's token.
    pub(crate) client: Client,
    /// Names at this server.
    pub(crate) names: Names,
    /// The CofferConnection it belongs to.
    pub(crate) connection: Arc<CofferConnection>,
}

struct Session {
    client: Client,
    ca_pem: String,
    address: String,
    mount: String,
    renewable: bool,
    ttl: Duration,
    since: Instant,
}

impl Session {
    fn is_for(&self, address: &str, mount: &str, ca_pem: &str) -> bool {
        self.address == address && self.mount == mount && self.ca_pem == ca_pem
    }
}

/// Sessions by CofferConnection.
pub(crate) struct Sessions {
    token_file: PathBuf,
    open: Mutex<HashMap<String, Session>>,
}

impl Sessions {
    /// No session yet; logins will use the token in this file.
    pub(crate) fn new(token_file: PathBuf) -> Self {
        Self { token_file, open: Mutex::new(HashMap::new()) }
    }

    /// A session for the connection: the open one, renewed when two thirds of it are over, or a new login.
    pub(crate) async fn vault(
        &self,
        connection: Arc<CofferConnection>,
        ca_pem: &str,
    ) -> Result<Vault, Error> {
        let spec = &connection.spec;
        let names = Names { cluster: spec.cluster.clone(), mount: spec.auth.mount.clone() };
        let mut open = self.open.lock().await;
        let name = connection.name_any();
        let usable =
            open.get_mut(&name).filter(|session| session.is_for(&spec.address, &names.mount, ca_pem));
        if let Some(session) = usable
            && keep_alive(session).await
        {
            return Ok(Vault { client: session.client.clone(), names, connection });
        }
        open.remove(&name);
        let session = self.login(&names, &spec.address, ca_pem).await?;
        let client = session.client.clone();
        open.insert(name, session);
        Ok(Vault { client, names, connection })
    }

    /// Forgets a session whose token was refused or whose server is another one now.
    pub(crate) async fn forget(&self, connection: &str) {
        self.open.lock().await.remove(connection);
    }

    async fn login(&self, names: &Names, address: &str, ca_pem: &str) -> Result<Session, Error> {
        let path = &self.token_file;
        let jwt = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| Error::File { path: path.display().to_string(), source })?;
        let jwt = Disclose::from(jwt.trim());
        let client = client_for(address, ca_pem)?;
        let mount = names.operator_mount();
        let auth = client
            .login_kubernetes(&mount, "operator", jwt)
            .await
            .map_err(|error| Error::Connection(explain(&error, &mount)))?;
        tracing::info!(address, mount, accessor = %auth.accessor, "logged in");
        Ok(Session {
            client: client.with_token(&auth.client_token)?,
            ca_pem: ca_pem.to_owned(),
            address: address.to_owned(),
            mount: names.mount.clone(),
            renewable: auth.renewable,
            ttl: Duration::from_secs(auth.lease_duration),
            since: Instant::now(),
        })
    }
}

/// Whether the session can be used; renews it when it is time.
async fn keep_alive(session: &mut Session) -> bool {
    let age = session.since.elapsed();
    if age < session.ttl * 2 / 3 {
        return true;
    }
    if !session.renewable || age >= session.ttl {
        return false;
    }
    let renewed: Result<Auth, ClientError> = session.client.renew_self(None).await;
    match renewed {
        // Close to its max TTL a renewal gives little; then a new login is due.
        Ok(auth) if auth.lease_duration > 60 => {
            session.ttl = Duration::from_secs(auth.lease_duration);
            session.since = Instant::now();
            true
        }
        Ok(_) => false,
        Err(error) => {
            tracing::info!("token not renewed, logging in anew: {error}");
            false
        }
    }
}

/// Why no session could be had, in the words of a condition.
pub(crate) fn explain(error: &ClientError, mount: &str) -> NotConnected {
    let said = brief(&error.to_string());
    let (reason, message) = if says_sealed(error) {
        ("Sealed", format!("the vault is sealed; unseal it with `coffer operator unseal` ({said})"))
    } else if matches!(error.status(), Some(400 | 403 | 404)) {
        (
            "LoginRefused",
            format!(
                "the server refused the operator's login at auth/{mount}; run `coffer-operator k8s-bootstrap` or let autoInit do it ({said})"
            ),
        )
    } else if error.status().is_some() {
        ("ServerUnavailable", format!("the server answers but cannot do it now: {said}"))
    } else if matches!(error, ClientError::Config(_)) {
        ("InvalidConnection", format!("check spec.address and spec.caBundleRef: {said}"))
    } else {
        (
            "Unreachable",
            format!(
                "no answer from the server; check its pods, Service and NetworkPolicy, and the CA bundle ({said})"
            ),
        )
    };
    NotConnected { reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_says_what_to_do() {
        let status = |code| ClientError::Status { code, errors: vec!["no".into()] };
        let sealed = ClientError::Status { code: 503, errors: vec!["Vault is sealed".into()] };
        assert_eq!(explain(&sealed, "m").reason, "Sealed");
        assert_eq!(explain(&status(503), "m").reason, "ServerUnavailable");
        assert_eq!(explain(&status(403), "m").reason, "LoginRefused");
        assert_eq!(explain(&ClientError::Unreachable("refused".into()), "m").reason, "Unreachable");
        assert_eq!(explain(&ClientError::Config("CA".into()), "m").reason, "InvalidConnection");
    }
}
