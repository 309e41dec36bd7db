//! The subcommands. Never does their work.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use coffer_crds::connection::Delegation;

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
    /// Set a server up for a cluster, with an admin's token: mounts, auth mounts, boundary, the operator's policy.
    K8sBootstrap(BootstrapArgs),
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

/// What `k8s-bootstrap` needs. The admin's token is not among it: it comes from a file or from stdin.
#[derive(Args, Clone, Debug)]
pub(crate) struct BootstrapArgs {
    /// URL of the server.
    #[arg(long, env = "COFFER_ADDR")]
    pub(crate) address: String,
    /// File with the CA bundle for it.
    #[arg(long, env = "COFFER_CACERT", default_value = "/coffer/ca/ca.crt")]
    pub(crate) ca_file: PathBuf,
    /// File with the admin's token; `-` for stdin.
    #[arg(long, env = "COFFER_TOKEN_FILE", default_value = "-")]
    pub(crate) token_file: PathBuf,
    /// Name of the cluster at the server.
    #[arg(long, env = "COFFER_CLUSTER")]
    pub(crate) cluster: String,
    /// Auth mount of the cluster's pods; default: kubernetes/<cluster>.
    #[arg(long, env = "COFFER_AUTH_MOUNT")]
    mount: Option<String>,
    /// Audience of the tokens that pods and the operator log in with.
    #[arg(long, env = "COFFER_AUDIENCE", default_value = "coffer")]
    pub(crate) audience: String,
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "coffer-system")]
    pub(crate) namespace: String,
    /// ServiceAccount of the operator.
    #[arg(long, default_value = "coffer-operator")]
    pub(crate) operator_service_account: String,
    /// Issuer of the cluster's ServiceAccount tokens; default: the API server is asked.
    #[arg(long)]
    pub(crate) issuer: Option<String>,
    /// The API server, as the vault's server reaches it.
    #[arg(long, env = "COFFER_KUBERNETES_HOST", default_value = "https://kubernetes.default.svc")]
    pub(crate) kubernetes_host: String,
    /// File with the CA of the API server; default: what Kubernetes publishes in the operator's namespace.
    #[arg(long)]
    pub(crate) kubernetes_ca_file: Option<PathBuf>,
    /// CofferConnection whose delegations limit the pods, when they are not given here.
    #[arg(long, default_value = "default")]
    pub(crate) connection: String,
    /// File with a CofferConnection, YAML, whose delegations limit the pods.
    #[arg(long, env = "COFFER_CONNECTION_FILE", conflicts_with = "delegate")]
    pub(crate) connection_file: Option<PathBuf>,
    /// A delegation: <path prefix>=<capability>[,<capability>..]. May be repeated.
    #[arg(long, value_parser = bootstrap::parse_delegation)]
    pub(crate) delegate: Vec<Delegation>,
}

impl BootstrapArgs {
    /// Auth mount of the cluster's pods.
    pub(crate) fn mount(&self) -> String {
        self.mount.clone().unwrap_or_else(|| format!("kubernetes/{}", self.cluster))
    }
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
            Command::K8sBootstrap(args) => bootstrap::k8s_bootstrap(args).await,
            Command::MakeTls(args) => tls::make(&args).await,
            Command::Run(args) => controllers::run(args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const LEAST: [&str; 6] =
        ["coffer-operator", "k8s-bootstrap", "--address", "https://coffer:8200", "--cluster", "prod"];

    fn parse(more: &[&str]) -> Result<BootstrapArgs, clap::Error> {
        match Cli::try_parse_from(LEAST.iter().chain(more))?.command {
            Command::K8sBootstrap(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bootstrap_has_the_defaults_of_auto_init() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.mount(), "kubernetes/prod");
        assert_eq!((args.audience.as_str(), args.namespace.as_str()), ("coffer", "coffer-system"));
        assert_eq!(args.operator_service_account, "coffer-operator");
        assert_eq!(args.kubernetes_host, "https://kubernetes.default.svc");
        assert_eq!(args.connection, "default");
        assert_eq!(parse(&["--mount", "kubernetes/x"]).unwrap().mount(), "kubernetes/x");
    }

    #[test]
    fn delegations_come_from_flags_or_a_file_but_not_both() {
        let flags = ["--delegate", "a/=read", "--delegate", "b/=read,list"];
        assert_eq!(parse(&flags).unwrap().delegate.len(), 2);
        assert!(parse(&["--delegate", "a/"]).is_err());
        assert!(parse(&["--delegate", "a/=read", "--connection-file", "c.yaml"]).is_err());
    }

    #[test]
    fn a_token_fits_into_no_argument_and_no_variable() {
        assert_eq!(parse(&[]).unwrap().token_file, PathBuf::from("-"));
        assert!(parse(&["--token", "s.abc"]).is_err());
        assert!(parse(&["s.abc"]).is_err());
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                let name = arg.get_id().as_str();
                assert!(!name.contains("token") || name == "token_file", "{name}");
                assert_ne!(arg.get_env().and_then(|env| env.to_str()), Some("COFFER_TOKEN"), "{name}");
            }
        }
    }
}
