//! `coffer-operator auto-init`: initialises, unseals and sets up, for as long as it runs. For evaluation only.

use std::time::Duration;

use anyhow::Context as _;
use coffer_client::Client as Coffer;
use coffer_client::wire::InitRequest;
use coffer_crds::CofferConnection;
use coffer_crds::connection::Delegation;
use kube::{Api, Client};
use serde::Deserialize;

use super::cluster::{Cluster, bootstrap};
use super::keys::KeySecret;
use crate::cli::AutoInitArgs;
use crate::names::Names;
use crate::vault::client_for;
use crate::{controllers, health};

/// How often the seal state is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often an unsealed server's set-up is compared.
const SET_UP_EVERY: Duration = Duration::from_secs(15);

/// What one look came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    /// The server is unsealed and set up.
    Done,
    /// Something was changed; look again at once.
    Again,
}

/// Looks after the server until told to stop.
pub(crate) async fn auto_init(args: AutoInitArgs) -> anyhow::Result<()> {
    let kube = Client::try_default().await.context("no Kubernetes API server to talk to")?;
    tracing::warn!(
        "autoInit keeps the unseal key and the root token in a Secret: for evaluation, never for production"
    );
    tokio::select! {
        () = look_after(&args, &kube) => Ok(()),
        served = health::serve(args.health_addr) => served.context("health endpoint"),
        () = controllers::stopped() => Ok(()),
    }
}

async fn look_after(args: &AutoInitArgs, kube: &Client) {
    let keys = KeySecret::new(kube, &args.namespace, &args.secret);
    let mut set_up_at = None::<tokio::time::Instant>;
    let mut said = String::new();
    loop {
        let due = set_up_at.is_none_or(|at| at.elapsed() >= SET_UP_EVERY);
        match look(args, kube, &keys, due).await {
            Ok(Look::Done) => {
                if due {
                    set_up_at = Some(tokio::time::Instant::now());
                }
                said.clear();
            }
            Ok(Look::Again) => {
                set_up_at = None;
                continue;
            }
            Err(error) => {
                set_up_at = None;
                let text = format!("{error:#}");
                if text != said {
                    tracing::warn!("{text}");
                    said = text;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(args: &AutoInitArgs, kube: &Client, keys: &KeySecret, due: bool) -> anyhow::Result<Look> {
    // Read anew each time: the CA may be a new one after a reinstallation.
    let ca_pem = tokio::fs::read_to_string(&args.ca_file).await.context("CA bundle")?;
    let client = client_for(&args.address, &ca_pem)?;
    let status = client.seal_status().await.context("seal status")?;
    if !status.initialized {
        keys.prepare().await.context("Secret for the keys")?;
        tracing::info!("initialising the vault");
        let request = InitRequest { secret_shares: 1, secret_threshold: 1 };
        keys.write(&client.init(&request).await.context("init")?).await?;
        return Ok(Look::Again);
    }
    if status.sealed {
        let kept = kept_keys(args, keys).await?;
        let after = client.unseal(kept.unseal_key).await.context("unseal")?;
        anyhow::ensure!(!after.sealed, "the key in Secret {} does not unseal this vault", args.secret);
        tracing::info!("unsealed");
        return Ok(Look::Again);
    }
    if due {
        let kept = kept_keys(args, keys).await?;
        set_up(args, kube, &client.with_token(&kept.root_token)?).await.context("set-up")?;
    }
    Ok(Look::Done)
}

async fn kept_keys(args: &AutoInitArgs, keys: &KeySecret) -> anyhow::Result<super::keys::Keys> {
    keys.read().await?.with_context(|| {
        format!(
            "the vault is initialised but Secret {}/{} has no keys: unseal it by hand, or empty its volume",
            args.namespace, args.secret
        )
    })
}

async fn set_up(args: &AutoInitArgs, kube: &Client, client: &Coffer) -> anyhow::Result<()> {
    let ca_pem = tokio::fs::read_to_string(&args.kubernetes_ca_file).await.context("cluster CA")?;
    let cluster = Cluster {
        names: Names { cluster: args.cluster.clone(), mount: args.mount.clone() },
        audience: args.audience.clone(),
        namespace: args.namespace.clone(),
        service_account: args.operator_service_account.clone(),
        issuer: issuer(kube).await?,
        host: args.kubernetes_host.clone(),
        ca_pem,
        delegations: delegations(args, kube).await?,
    };
    Ok(bootstrap(client, &cluster).await?)
}

/// The cluster's own word on who issues its tokens.
pub(super) async fn issuer(kube: &Client) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
    }
    let request = http::Request::get("/.well-known/openid-configuration").body(Vec::new())?;
    let discovery: Discovery = kube.request(request).await.context("issuer discovery")?;
    Ok(discovery.issuer)
}

async fn delegations(args: &AutoInitArgs, kube: &Client) -> anyhow::Result<Vec<Delegation>> {
    let connection = Api::<CofferConnection>::all(kube.clone()).get_opt(&args.connection).await;
    let found = match connection {
        Ok(found) => found,
        // The CRD itself may not be there yet.
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => return Err(error).context("CofferConnection"),
    };
    let found = match (found, &args.connection_file) {
        (Some(found), _) => Some(found),
        (None, Some(file)) => Some(crate::connection::read_file(file).await?),
        (None, None) => None,
    };
    Ok(found.map(|connection| connection.spec.delegations).unwrap_or_default())
}
