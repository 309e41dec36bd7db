//! A Kubernetes to test on: the local one, `kind`, or whatever `KUBECONFIG` names. Never changes a
//! cluster it did not start other than by the objects of its tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::paths::{cache_dir, cluster_script, repo};
use crate::shell::{Output, run, run_with_input, try_run};

/// Which cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `e2e/cluster/cluster`: namespaces on this machine.
    Local,
    /// `kind`, in Docker.
    Kind,
}

/// A running cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    kind: Kind,
    kubeconfig: PathBuf,
    bin: PathBuf,
    host_address: String,
}

impl Cluster {
    /// What `CLUSTER` asks for: `kind`, or the local one.
    pub fn wanted() -> Kind {
        if std::env::var("CLUSTER").is_ok_and(|value| value == "kind") { Kind::Kind } else { Kind::Local }
    }

    /// Starts the cluster `CLUSTER` asks for, or takes it as it is if it is up.
    pub async fn up() -> Result<Self> {
        match Self::wanted() {
            Kind::Local => {
                run(Command::new(cluster_script()).arg("up")).await?;
                Self::local().await
            }
            Kind::Kind => Self::kind_up().await,
        }
    }

    async fn local() -> Result<Self> {
        let script = cluster_script();
        let settings = run(Command::new(&script).arg("env")).await?;
        let value = |name: &str| {
            let word =
                settings.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.map(str::to_owned).with_context(|| format!("{} env does not say {name}", script.display()))
        };
        let bin = value("PATH")?.split(':').next().unwrap_or_default().into();
        let (kubeconfig, host_address) = (value("KUBECONFIG")?.into(), value("COFFER_HOST_IP")?);
        Ok(Self { kind: Kind::Local, kubeconfig, bin, host_address })
    }

    // Not exercised where there is no Docker: kind reads the same kind-config.yaml.
    async fn kind_up() -> Result<Self> {
        let kubeconfig = cache_dir().join("kind.kubeconfig");
        let clusters = run(Command::new("kind").args(["get", "clusters"])).await.context(
            "CLUSTER=kind needs Docker and kind on the PATH: https://kind.sigs.k8s.io/docs/user/quick-start",
        )?;
        let mut kind = Command::new("kind");
        if clusters.lines().any(|name| name == "coffer") {
            kind.args(["export", "kubeconfig", "--name", "coffer"]);
        } else {
            kind.arg("create").arg("cluster").arg("--config").arg(repo().join("kind-config.yaml"));
        }
        run(kind.arg("--kubeconfig").arg(&kubeconfig)).await?;
        // Pods reach the machine at the gateway of kind's network.
        let format = "{{range .IPAM.Config}}{{.Gateway}} {{end}}";
        let out = run(Command::new("docker").args(["network", "inspect", "kind", "-f", format])).await?;
        let v4 = out.split_whitespace().find(|address| address.contains('.'));
        let host_address = v4.context("the docker network `kind` has no IPv4 gateway")?.to_owned();
        Ok(Self { kind: Kind::Kind, kubeconfig, bin: PathBuf::new(), host_address })
    }

    /// Ends the cluster `CLUSTER` asks for, with everything in it.
    pub async fn down() -> Result<()> {
        match Self::wanted() {
            Kind::Local => run(Command::new(cluster_script()).arg("down")).await.map(drop),
            Kind::Kind => {
                run(Command::new("kind").args(["delete", "cluster", "--name", "coffer"])).await.map(drop)
            }
        }
    }

    /// Which cluster this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The kubeconfig that reaches it.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The address at which pods reach a program on this machine.
    pub fn host_address(&self) -> &str {
        &self.host_address
    }

    /// A program of the cluster's own version (`kubectl`, `helm`), pointed at it.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        let cache = cache_dir();
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", cache.join("kube"));
        command.env("HELM_CACHE_HOME", cache.join("helm")).env("HELM_CONFIG_HOME", cache.join("helm"));
        command.env("HELM_DATA_HOME", cache.join("helm"));
        command
    }

    /// Puts images into the cluster.
    pub async fn load(&self, images: &[PathBuf]) -> Result<()> {
        match self.kind {
            Kind::Local => run(Command::new(cluster_script()).arg("load").args(images)).await.map(drop),
            Kind::Kind => {
                for image in images {
                    run(Command::new("kind").args(["load", "image-archive", "--name", "coffer"]).arg(image))
                        .await?;
                }
                Ok(())
            }
        }
    }

    /// Runs a command on the node.
    pub async fn on_node(&self, args: &[&str]) -> Result<String> {
        match self.kind {
            Kind::Local => run(Command::new(cluster_script()).arg("exec").args(args)).await,
            Kind::Kind => run(Command::new("docker").args(["exec", "coffer-control-plane"]).args(args)).await,
        }
    }

    /// `kubectl ARGS`: its stdout.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        run(self.program("kubectl").args(args)).await
    }

    /// `kubectl ARGS`, however it ends.
    pub async fn try_kubectl(&self, args: &[&str]) -> Result<Output> {
        try_run(self.program("kubectl").args(args), None).await
    }

    /// `kubectl get ARGS -o json`.
    pub async fn get(&self, args: &[&str]) -> Result<Value> {
        let out = run(self.program("kubectl").arg("get").args(args).args(["-o", "json"])).await?;
        serde_json::from_str(&out).context("kubectl's JSON")
    }

    /// Applies manifests (server-side).
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let mut kubectl = self.program("kubectl");
        kubectl.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        run_with_input(&mut kubectl, manifests.as_bytes()).await.map(drop)
    }

    /// Applies manifests that the API server should refuse; what it answered, or an error if it took them.
    pub async fn apply_refused(&self, manifests: &str) -> Result<String> {
        let mut kubectl = self.program("kubectl");
        let output = try_run(kubectl.args(["apply", "-f", "-"]), Some(manifests.as_bytes())).await?;
        if output.ok {
            bail!("the API server took it:\n{}", output.stdout);
        }
        Ok(output.stderr)
    }

    /// Waits for a condition, and says what stands in its way if it does not come.
    pub async fn wait_for(
        &self,
        namespace: &str,
        object: &str,
        condition: &str,
        limit: Duration,
    ) -> Result<()> {
        let (condition, limit) = (format!("--for={condition}"), format!("--timeout={}s", limit.as_secs()));
        let output = self.try_kubectl(&["wait", "-n", namespace, object, &condition, &limit]).await?;
        if output.ok {
            return Ok(());
        }
        let state = self.kubectl(&["describe", "-n", namespace, object]).await.unwrap_or_default();
        let tail: Vec<&str> = state.lines().rev().take(40).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        bail!(
            "{namespace}/{object}: {}\n{tail}\n{}",
            output.stderr.trim(),
            self.pod_logs(namespace, object).await
        );
    }

    async fn pod_logs(&self, namespace: &str, object: &str) -> String {
        if !object.starts_with("pod/") {
            return String::new();
        }
        let args = ["logs", "-n", namespace, object, "--all-containers", "--prefix", "--tail=20"];
        self.try_kubectl(&args)
            .await
            .map(|output| format!("{}{}", output.stdout, output.stderr))
            .unwrap_or_default()
    }

    /// A container's log.
    pub async fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        self.kubectl(&["logs", "-n", namespace, pod, "-c", container]).await
    }

    /// The messages of the Events about objects of this name, "Reason: message" a line.
    pub async fn events(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        let selector = format!("--field-selector=involvedObject.name={name}");
        let list = self.get(&["events", "-n", namespace, &selector]).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let line =
            |event: &Value| Some(format!("{}: {}", event["reason"].as_str()?, event["message"].as_str()?));
        Ok(items.iter().filter_map(line).collect())
    }

    /// A client of the API server, for what kubectl cannot do.
    pub async fn client(&self) -> Result<kube::Client> {
        let text = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(text, &Default::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }
}
