//! `coffer-operator make-tls`: a CA of its own and the server's certificate, unless they exist. Never replaces a CA
//! that is in use, and never writes a key anywhere but into its Secret.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::{ToSpan, Zoned, tz::TimeZone};
use kube::api::PostParams;
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::cli::MakeTlsArgs;
use crate::clock;

/// Life of the CA.
const CA_YEARS: i32 = 10;
/// Life of the server's certificate.
const SERVER_YEARS: i32 = 2;

/// PEM texts of a CA and a certificate it signed.
struct Made {
    ca_cert: String,
    ca_key: String,
    cert: String,
    key: String,
}

/// Makes what is missing.
pub(crate) async fn make(args: &MakeTlsArgs) -> anyhow::Result<()> {
    let kube = Client::try_default().await.context("no Kubernetes API server to talk to")?;
    let secrets: Api<Secret> = Api::namespaced(kube.clone(), &args.namespace);
    let maps: Api<ConfigMap> = Api::namespaced(kube, &args.namespace);
    let ca = secrets.get_opt(&args.ca_secret).await.context("CA Secret")?;
    let server = secrets.get_opt(&args.secret).await.context("server Secret")?;
    let made = match (&ca, &server) {
        (Some(ca), Some(_)) => {
            tracing::info!("CA and server certificate exist; nothing to do");
            let cert = text(ca, "tls.crt")?;
            return put_config_map(&maps, args, &cert).await;
        }
        (Some(ca), None) => issue(args, Some((text(ca, "tls.crt")?, text(ca, "tls.key")?)))?,
        (None, _) => issue(args, None)?,
    };
    if ca.is_none() {
        create(&secrets, &args.ca_secret, &made.ca_cert, &made.ca_key).await?;
    }
    if server.is_some() {
        // A certificate without our CA is the admin's own; its CA belongs into the ConfigMap by his hand.
        anyhow::bail!(
            "Secret {} exists but Secret {} does not: set server.tls.create=false and keep the ConfigMap {} yourself",
            args.secret,
            args.ca_secret,
            args.ca_config_map
        );
    }
    create(&secrets, &args.secret, &made.cert, &made.key).await?;
    put_config_map(&maps, args, &made.ca_cert).await?;
    tracing::info!("made a CA and the server's certificate");
    Ok(())
}

/// DNS names and addresses of the server's certificate.
fn subject_alt_names(args: &MakeTlsArgs) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for service in [&args.service, &args.internal_service] {
        for suffix in [String::new(), format!(".{}", args.namespace), format!(".{}.svc", args.namespace)] {
            names.push(format!("{service}{suffix}"));
        }
        names.push(format!("{service}.{}.svc.cluster.local", args.namespace));
    }
    // Each replica by its own name in the headless Service.
    names.push(format!("*.{}", args.internal_service));
    names.push(format!("*.{}.{}.svc", args.internal_service, args.namespace));
    names.push(format!("*.{}.{}.svc.cluster.local", args.internal_service, args.namespace));
    names
}

fn validity(params: &mut CertificateParams, years: i32) -> anyhow::Result<()> {
    let now = Zoned::new(clock::now().0, TimeZone::UTC);
    // From yesterday, so that a node whose clock is a little slow accepts it.
    let (from, to) = (now.checked_sub(1.day())?, now.checked_add(years.years())?);
    let date = |at: &Zoned| -> anyhow::Result<_> {
        Ok(date_time_ymd(i32::from(at.year()), u8::try_from(at.month())?, u8::try_from(at.day())?))
    };
    params.not_before = date(&from)?;
    params.not_after = date(&to)?;
    Ok(())
}

fn issue(args: &MakeTlsArgs, ca: Option<(String, String)>) -> anyhow::Result<Made> {
    let (issuer, ca_cert, ca_key) = match ca {
        Some((cert, key)) => {
            let pair = KeyPair::from_pem(&key).context("CA key")?;
            (Issuer::from_ca_cert_pem(&cert, pair).context("CA certificate")?, cert, key)
        }
        None => new_ca()?,
    };
    let mut params = CertificateParams::new(subject_alt_names(args))?;
    params.distinguished_name.push(DnType::CommonName, format!("{}.{}.svc", args.service, args.namespace));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    validity(&mut params, SERVER_YEARS)?;
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer)?;
    Ok(Made { ca_cert, ca_key, cert: cert.pem(), key: key.serialize_pem() })
}

fn new_ca() -> anyhow::Result<(Issuer<'static, KeyPair>, String, String)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "Coffer CA");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, CA_YEARS)?;
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    let text = key.serialize_pem();
    Ok((Issuer::new(params, key), cert.pem(), text))
}

fn text(secret: &Secret, key: &str) -> anyhow::Result<String> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = bytes.with_context(|| format!("Secret has no key {key}"))?;
    String::from_utf8(bytes.0.clone()).with_context(|| format!("Secret key {key} is not text"))
}

async fn create(api: &Api<Secret>, name: &str, cert: &str, key: &str) -> anyhow::Result<()> {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret.type_ = Some("kubernetes.io/tls".to_owned());
    secret.data = Some(BTreeMap::from([
        ("tls.crt".to_owned(), ByteString(cert.as_bytes().to_vec())),
        ("tls.key".to_owned(), ByteString(key.as_bytes().to_vec())),
    ]));
    api.create(&PostParams::default(), &secret).await.with_context(|| format!("Secret {name}"))?;
    Ok(())
}

async fn put_config_map(api: &Api<ConfigMap>, args: &MakeTlsArgs, cert: &str) -> anyhow::Result<()> {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(args.ca_config_map.clone());
    map.data = Some(BTreeMap::from([("ca.crt".to_owned(), cert.to_owned())]));
    match api.create(&PostParams::default(), &map).await {
        Ok(_) => Ok(()),
        // What is there may hold more than this CA: an admin adds one before he changes to it.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("ConfigMap {}", args.ca_config_map)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> MakeTlsArgs {
        MakeTlsArgs {
            namespace: "coffer-system".into(),
            secret: "s".into(),
            ca_secret: "c".into(),
            ca_config_map: "m".into(),
            service: "coffer".into(),
            internal_service: "coffer-internal".into(),
        }
    }

    #[test]
    fn the_certificate_names_every_way_to_the_server() {
        let names = subject_alt_names(&args());
        for name in [
            "localhost",
            "127.0.0.1",
            "coffer",
            "coffer.coffer-system.svc",
            "*.coffer-internal.coffer-system.svc",
        ] {
            assert!(names.iter().any(|one| one == name), "{name}");
        }
    }

    #[test]
    fn a_ca_that_exists_signs_a_new_certificate() {
        let first = issue(&args(), None).unwrap();
        let second = issue(&args(), Some((first.ca_cert.clone(), first.ca_key.clone()))).unwrap();
        assert_eq!(first.ca_cert, second.ca_cert);
        assert_ne!(first.cert, second.cert);
    }
}
