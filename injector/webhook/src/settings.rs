//! What the admin says once, for every pod. The only room that reads arguments and environment.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments of `coffer-injector`.
#[derive(Clone, Debug, Parser)]
#[command(name = "coffer-injector", about = "Injects Coffer's agent into pods that ask for secrets", version)]
pub struct Args {
    /// Address of the Coffer server that agents use.
    #[arg(long, env = "COFFER_SERVER_ADDR", default_value = "https://coffer.coffer-system.svc:8200")]
    pub server_addr: String,
    /// File with the CA that agents trust, PEM; read again every minute.
    #[arg(long, env = "COFFER_CA_FILE", default_value = "/etc/coffer/ca/ca.crt")]
    pub ca_file: PathBuf,
    /// Name of this cluster at the server.
    #[arg(long, env = "COFFER_CLUSTER")]
    pub cluster: String,
    /// Auth mount of this cluster's pods; default `kubernetes/<cluster>`.
    #[arg(long, env = "COFFER_AUTH_MOUNT")]
    pub auth_mount: Option<String>,
    /// Audience of the ServiceAccount tokens.
    #[arg(long, env = "COFFER_AUDIENCE", default_value = "coffer")]
    pub audience: String,
    /// Image of the agent.
    #[arg(long, env = "COFFER_AGENT_IMAGE")]
    pub agent_image: String,
    /// When the kubelet pulls that image.
    #[arg(long, env = "COFFER_AGENT_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub agent_image_pull_policy: String,
    /// The injector's own namespace.
    #[arg(long, env = "COFFER_NAMESPACE", default_value = "coffer-system")]
    pub namespace: String,
    /// The injector's Service.
    #[arg(long, env = "COFFER_SERVICE_NAME", default_value = "coffer-injector")]
    pub service_name: String,
    /// The Secret the injector keeps its certificate in.
    #[arg(long, env = "COFFER_TLS_SECRET", default_value = "coffer-injector-tls")]
    pub tls_secret: String,
    /// The MutatingWebhookConfiguration whose CA the injector keeps.
    #[arg(long, env = "COFFER_WEBHOOK_NAME", default_value = "coffer-injector")]
    pub webhook_name: String,
    /// Where to listen.
    #[arg(long, env = "COFFER_LISTEN", default_value = "[::]:8443")]
    pub listen: SocketAddr,
}

/// What a patch depends on besides the pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Address of the server.
    pub server_addr: String,
    /// The CA the agent trusts, PEM.
    pub ca_pem: String,
    /// The cluster's name.
    pub cluster: String,
    /// The pods' auth mount.
    pub auth_mount: String,
    /// Audience of the tokens.
    pub audience: String,
    /// The agent's image.
    pub agent_image: String,
    /// Its pull policy.
    pub agent_image_pull_policy: String,
}

impl Args {
    /// The settings with this CA.
    pub fn settings(&self, ca_pem: String) -> Settings {
        Settings {
            server_addr: self.server_addr.clone(),
            ca_pem,
            cluster: self.cluster.clone(),
            auth_mount: self.auth_mount.clone().unwrap_or_else(|| format!("kubernetes/{}", self.cluster)),
            audience: self.audience.clone(),
            agent_image: self.agent_image.clone(),
            agent_image_pull_policy: self.agent_image_pull_policy.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auth_mount_follows_the_cluster() {
        let args = Args::parse_from(["coffer-injector", "--cluster", "prod", "--agent-image", "agent:1"]);
        assert_eq!(args.settings(String::new()).auth_mount, "kubernetes/prod");
    }
}
