//! The subcommands. Never does their work.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{bootstrap, connection, controllers, crd_files, tls};

/// Turns coffer.dev objects into what the vault's server needs.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Apply a CofferConnection from a file, as soon as its kind exists.
    ApplyConnection(ApplyConnectionArgs),
    /// Initialise and unseal the server and set it up for this cluster. For evaluation: the keys lie in a Secret.
    AutoInit(AutoInitArgs),
    /// Print the CRDs as YAML, or write them as chart templates.
    Crds(CrdsArgs),
    /// Make a CA and the server's certificate, unless they exist.
    MakeTls(MakeTlsArgs),
    /// Reconcile until told to stop.
    Run(RunArgs),
}

/// What `run` needs.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Address of the health endpoint.
    #[arg(long, env = "COFFER_HEALTH_ADDR", default_value = "[::]:8080")]
    pub(crate) health_addr: SocketAddr,
    /// Projected ServiceAccount token to log in with; read anew at every login.
    #[arg(long, env = "COFFER_TOKEN_FILE", default_value = "/var/run/coffer/serviceaccount/token")]
    pub(crate) token_file: PathBuf,
    /// Name of this pod, for Events.
    #[arg(long, env = "POD_NAME")]
    pub(crate) pod_name: Option<String>,
}

/// What `auto-init` needs.
#[derive(Args, Clone, Debug)]
pub(crate) struct AutoInitArgs {
    /// URL of the server, also while it is sealed.
    #[arg(long, env = "COFFER_ADDR")]
    pub(crate) address: String,
    /// File with the CA bundle for it.
    #[arg(long, env = "COFFER_CA_FILE", default_value = "/coffer/ca/ca.crt")]
    pub(crate) ca_file: PathBuf,
    /// Namespace of this installation.
    #[arg(long, env = "POD_NAMESPACE")]
    pub(crate) namespace: String,
    /// Secret that keeps the unseal key and the root token.
    #[arg(long, default_value = "coffer-unseal-keys")]
    pub(crate) secret: String,
    /// Name of this cluster at the server.
    #[arg(long, env = "COFFER_CLUSTER")]
    pub(crate) cluster: String,
    /// Auth mount of this cluster's pods.
    #[arg(long, env = "COFFER_AUTH_MOUNT")]
    pub(crate) mount: String,
    /// Audience of the tokens that pods and the operator log in with.
    #[arg(long, env = "COFFER_AUDIENCE", default_value = "coffer")]
    pub(crate) audience: String,
    /// CofferConnection whose delegations limit the pods.
    #[arg(long, default_value = "default")]
    pub(crate) connection: String,
    /// File with the CofferConnection that is to be, for the time before it exists.
    #[arg(long, env = "COFFER_CONNECTION_FILE")]
    pub(crate) connection_file: Option<PathBuf>,
    /// The API server, as the vault's server reaches it.
    #[arg(long, env = "COFFER_KUBERNETES_HOST", default_value = "https://kubernetes.default.svc")]
    pub(crate) kubernetes_host: String,
    /// File with the CA of the API server.
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")]
    pub(crate) kubernetes_ca_file: PathBuf,
    /// ServiceAccount of the operator.
    #[arg(long, default_value = "coffer-operator")]
    pub(crate) operator_service_account: String,
    /// Address of the health endpoint.
    #[arg(long, env = "COFFER_HEALTH_ADDR", default_value = "[::]:8080")]
    pub(crate) health_addr: SocketAddr,
}

/// What `apply-connection` needs.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApplyConnectionArgs {
    /// File with one CofferConnection, YAML.
    #[arg(long, env = "COFFER_CONNECTION_FILE", default_value = "/etc/coffer/connection.yaml")]
    pub(crate) file: PathBuf,
    /// How long to wait for the kind to be known, in seconds.
    #[arg(long, default_value_t = 60)]
    pub(crate) wait_secs: u64,
}

/// What `make-tls` needs.
#[derive(Args, Clone, Debug)]
pub(crate) struct MakeTlsArgs {
    /// Namespace of this installation.
    #[arg(long, env = "POD_NAMESPACE")]
    pub(crate) namespace: String,
    /// Secret for the server's certificate and key.
    #[arg(long, default_value = "coffer-server-tls")]
    pub(crate) secret: String,
    /// Secret for the CA's key.
    #[arg(long, default_value = "coffer-ca-key")]
    pub(crate) ca_secret: String,
    /// ConfigMap for the CA's certificate.
    #[arg(long, default_value = "coffer-ca")]
    pub(crate) ca_config_map: String,
    /// Name of the server's Service.
    #[arg(long, default_value = "coffer")]
    pub(crate) service: String,
    /// Name of the headless Service that also publishes sealed servers.
    #[arg(long, default_value = "coffer-internal")]
    pub(crate) internal_service: String,
}

/// What `crds` needs.
#[derive(Args, Clone, Debug)]
pub(crate) struct CrdsArgs {
    /// Directory to write chart templates to, instead of printing.
    #[arg(long)]
    pub(crate) chart: Option<PathBuf>,
}

impl Cli {
    /// Runs the chosen subcommand to its end.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::ApplyConnection(args) => connection::apply_file(&args).await,
            Command::AutoInit(args) => bootstrap::auto_init(args).await,
            Command::Crds(args) => crd_files::write(&args),
            Command::MakeTls(args) => tls::make(&args).await,
            Command::Run(args) => controllers::run(args).await,
        }
    }
}
