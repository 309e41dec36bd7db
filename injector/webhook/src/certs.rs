//! The webhook's certificates: when to make them, which to serve, how they are made. Pure but for the
//! key generation. A CA lives exactly as long as the one certificate it signs: its key is dropped after
//! that one signature and never stored.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rcgen::{KeyUsagePurpose, date_time_ymd};
use std::fmt;
use std::time::Duration;
use thiserror::Error;
use zeroize::Zeroizing;

const VALID_SECS: u64 = 90 * 24 * 3600;
const RENEW_BEFORE_SECS: u64 = 30 * 24 * 3600;
/// Clocks of API server and node may differ.
const BACKDATE_SECS: u64 = 3600;
/// Time for every replica to read the new certificate and for the API server to trust its CA, before
/// the first replica shows it.
const SETTLE_SECS: u64 = 180;

/// A certificate could not be made.
#[derive(Debug, Error)]
#[error("make a certificate: {0}")]
pub struct CertError(#[from] rcgen::Error);

/// A certificate with its key, PEM.
#[derive(Clone, Eq, PartialEq)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: Zeroizing<String>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(..)")
    }
}

/// What the Secret holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// CAs to trust: the newest, then the one before it.
    pub ca_bundle: String,
    /// The newest certificate.
    pub current: Pair,
    /// The one before it, to be served until `serve_from`.
    pub previous: Option<Pair>,
    /// From when the newest is served, Unix seconds.
    pub serve_from: u64,
    /// When the newest ends, Unix seconds.
    pub not_after: u64,
}

impl Stored {
    /// Whether it is time for a successor.
    pub fn is_due(&self, now: u64) -> bool {
        now.saturating_add(RENEW_BEFORE_SECS) >= self.not_after
    }

    /// The certificate to show now.
    pub fn to_serve(&self, now: u64) -> &Pair {
        match &self.previous {
            Some(previous) if now < self.serve_from => previous,
            _ => &self.current,
        }
    }
}

/// Makes a certificate for these names, to follow the one there is.
///
/// # Errors
/// [`CertError`].
pub fn mint(names: &[String], now: u64, former: Option<&Stored>) -> Result<Stored, CertError> {
    let not_after = now + VALID_SECS;
    let window = |params: &mut CertificateParams| {
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATE_SECS));
        params.not_after = epoch + Duration::from_secs(not_after);
    };
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    window(&mut ca);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Distinct for each, so that old and new in one bundle are told apart by name as well.
    ca.distinguished_name.push(DnType::CommonName, format!("coffer-injector CA {now}"));
    let ca_key = KeyPair::generate()?;
    let ca_cert = ca.self_signed(&ca_key)?;

    let mut leaf = CertificateParams::new(names.to_vec())?;
    window(&mut leaf);
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.distinguished_name.push(DnType::CommonName, "coffer-injector");
    let key = KeyPair::generate()?;
    let cert = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;

    let mut ca_bundle = ca_cert.pem();
    if let Some(former) = former {
        ca_bundle.push_str(first_certificate(&former.ca_bundle));
    }
    Ok(Stored {
        ca_bundle,
        current: Pair { cert: cert.pem(), key: Zeroizing::new(key.serialize_pem()) },
        previous: former.map(|f| f.to_serve(now).clone()),
        serve_from: if former.is_some() { now + SETTLE_SECS } else { now },
        not_after,
    })
}

fn first_certificate(bundle: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    match bundle.find(END) {
        Some(at) => bundle.get(..at + END.len()).unwrap_or(bundle),
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["coffer-injector.coffer-system.svc".to_owned()]
    }

    #[test]
    fn the_first_is_served_at_once_and_renewed_in_time() {
        let stored = mint(&names(), 1_800_000_000, None).unwrap();
        assert_eq!(stored.to_serve(1_800_000_000), &stored.current);
        assert!(!stored.is_due(1_800_000_000));
        assert!(!stored.is_due(stored.not_after - RENEW_BEFORE_SECS - 1));
        assert!(stored.is_due(stored.not_after - RENEW_BEFORE_SECS));
    }

    #[test]
    fn a_successor_is_trusted_before_it_is_served() {
        let first = mint(&names(), 1_800_000_000, None).unwrap();
        let now = first.not_after - RENEW_BEFORE_SECS;
        let second = mint(&names(), now, Some(&first)).unwrap();
        assert_eq!(second.ca_bundle.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(second.to_serve(now), &first.current);
        assert_eq!(second.to_serve(now + SETTLE_SECS), &second.current);
        let third = mint(&names(), now + 5_184_000, Some(&second)).unwrap();
        assert_eq!(third.ca_bundle.matches("BEGIN CERTIFICATE").count(), 2, "only two at a time");
    }

    #[test]
    fn keys_do_not_show() {
        let stored = mint(&names(), 1_800_000_000, None).unwrap();
        assert!(!format!("{stored:?}").contains("PRIVATE"));
    }
}
