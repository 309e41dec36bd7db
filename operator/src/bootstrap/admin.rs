//! `coffer-operator k8s-bootstrap`: an admin sets a server up for a cluster, once. His token comes from a file or from
//! stdin and is shown nowhere: what stands in the arguments or in the environment, others on the machine can read.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::Context as _;
use coffer_client::wire::Disclose;
use coffer_crds::connection::Delegation;
use coffer_crds::{Capability, CofferConnection};
use kube::{Api, Client};

use super::auto::issuer;
use super::cluster::{Cluster, bootstrap};
use crate::cli::BootstrapArgs;
use crate::kubernetes::{Lookup, config_map_key};
use crate::names::Names;
use crate::vault::client_for;

/// The path that means stdin.
const STDIN: &str = "-";
/// Longer than any token is.
const TOKEN_BYTES_MAX: u64 = 8 << 10;
/// ConfigMap that Kubernetes puts into every namespace, with the CA of the API server.
const ROOT_CA: (&str, &str) = ("kube-root-ca.crt", "ca.crt");

/// Sets the server up for a cluster with an admin's token.
pub(crate) async fn k8s_bootstrap(args: BootstrapArgs) -> anyhow::Result<()> {
    let ca_pem = tokio::fs::read_to_string(&args.ca_file).await.context("CA bundle (--ca-file)")?;
    let token = token(&args.token_file)?;
    let client = client_for(&args.address, &ca_pem)?.with_token(&token)?;
    let cluster = cluster(&args).await?;
    bootstrap(&client, &cluster).await.context("set-up")?;
    tracing::info!("the server is set up for cluster {}", cluster.names.cluster);
    Ok(())
}

/// The admin's token. No error quotes the path: somebody may have written the token in its place.
fn token(file: &Path) -> anyhow::Result<Disclose> {
    if file == Path::new(STDIN) {
        let stdin = std::io::stdin();
        anyhow::ensure!(
            !stdin.is_terminal(),
            "the token is read from stdin, without asking: pipe it in, or name its file with --token-file"
        );
        return read_token(stdin.lock());
    }
    read_token(File::open(file).context("the file that --token-file names")?)
}

fn read_token(from: impl Read) -> anyhow::Result<Disclose> {
    let mut text = String::new();
    let read = from.take(TOKEN_BYTES_MAX).read_to_string(&mut text);
    // Wrapped before anything else, so that it is scrubbed whatever happens next.
    let text = Disclose::from(text);
    read.context("token")?;
    let token = text.expose().trim();
    anyhow::ensure!(!token.is_empty(), "the token is empty");
    anyhow::ensure!(!token.contains(char::is_whitespace), "the token has more than one word");
    Ok(Disclose::from(token))
}

/// What the arguments say; the cluster's API server is asked for what they do not.
async fn cluster(args: &BootstrapArgs) -> anyhow::Result<Cluster> {
    let delegations = match (&args.connection_file, args.delegate.is_empty()) {
        (Some(file), _) => Some(crate::connection::read_file(file).await?.spec.delegations),
        (None, false) => Some(args.delegate.clone()),
        (None, true) => None,
    };
    let kube = if args.issuer.is_none() || args.kubernetes_ca_file.is_none() || delegations.is_none() {
        Some(Client::try_default().await.context(
            "no Kubernetes API server to talk to; without one give --issuer, --kubernetes-ca-file and --delegate or --connection-file",
        )?)
    } else {
        None
    };
    Ok(Cluster {
        names: Names { cluster: args.cluster.clone(), mount: args.mount() },
        audience: args.audience.clone(),
        namespace: args.namespace.clone(),
        service_account: args.operator_service_account.clone(),
        issuer: match (&args.issuer, &kube) {
            (Some(issuer), _) => issuer.clone(),
            (None, Some(kube)) => issuer(kube).await?,
            (None, None) => anyhow::bail!("--issuer is not given"),
        },
        host: args.kubernetes_host.clone(),
        ca_pem: match (&args.kubernetes_ca_file, &kube) {
            (Some(file), _) => tokio::fs::read_to_string(file).await.context("cluster CA")?,
            (None, Some(kube)) => root_ca(kube, &args.namespace).await?,
            (None, None) => anyhow::bail!("--kubernetes-ca-file is not given"),
        },
        delegations: match (delegations, &kube) {
            (Some(delegations), _) => delegations,
            (None, Some(kube)) => of_connection(kube, &args.connection).await?,
            (None, None) => anyhow::bail!("no delegation is given"),
        },
    })
}

async fn root_ca(kube: &Client, namespace: &str) -> anyhow::Result<String> {
    let (name, key) = ROOT_CA;
    match config_map_key(kube, namespace, name, key).await? {
        Lookup::Found(pem) => Ok(pem),
        Lookup::Missing(why) | Lookup::Forbidden(why) => {
            anyhow::bail!("{why}; or give --kubernetes-ca-file")
        }
    }
}

/// The delegations of a CofferConnection. An absent one is an error here and not an empty list, which would take from
/// every namespace what it has.
async fn of_connection(kube: &Client, name: &str) -> anyhow::Result<Vec<Delegation>> {
    let found = Api::<CofferConnection>::all(kube.clone()).get_opt(name).await.context("CofferConnection")?;
    let found = found.with_context(|| {
        format!(
            "CofferConnection {name:?} does not exist: create it, or give --delegate or --connection-file"
        )
    })?;
    Ok(found.spec.delegations)
}

/// Reads `<path prefix>=<capability>[,<capability>..]`.
pub(crate) fn parse_delegation(text: &str) -> Result<Delegation, String> {
    let form = "write <path prefix>=<capability>[,<capability>..]";
    let (prefix, words) = text.rsplit_once('=').ok_or(form)?;
    if prefix.is_empty() {
        return Err(form.to_owned());
    }
    let capabilities = words
        .split(',')
        .map(|word| {
            serde_json::from_value::<Capability>(word.trim().into())
                .map_err(|_| format!("{word:?} is not a capability"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Delegation {
        namespace_selector: Default::default(),
        path_prefixes: vec![prefix.to_owned()],
        capabilities,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_of_text() {
        assert_eq!(read_token(&b" s.abc\n"[..]).unwrap().expose(), "s.abc");
        for bad in [&b""[..], b"\n", b"two words", b"\xff"] {
            assert!(read_token(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_in_place_of_its_file_is_not_repeated() {
        let error = token(Path::new("s.mistaken")).unwrap_err();
        assert!(!format!("{error:#} {error:?}").contains("mistaken"), "{error:#}");
    }

    #[test]
    fn delegations_are_read() {
        let one = parse_delegation("secret/data/{{namespace}}/=read, list").unwrap();
        assert_eq!(one.path_prefixes, ["secret/data/{{namespace}}/"]);
        assert_eq!(one.capabilities, [Capability::Read, Capability::List]);
        for bad in ["", "secret/", "=read", "secret/=", "secret/=read,write"] {
            assert!(parse_delegation(bad).is_err(), "{bad}");
        }
    }
}
