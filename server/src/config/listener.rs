//! `listener "tcp"`: where to listen, under which certificate, and what one client may take.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use coffer_core::hcl::{Block, Entry, HclError};

use super::forwarded::Forwarded;
use super::read::{Read, Reader, count, flag, missing, path, wrong};
use super::{CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT_MAX, Limits, Listener, TlsFiles};

/// What may stand in a listener, besides [`LISTENER_WITHOUT_EFFECT`].
pub(super) const LISTENER: &[&str] = &[
    "address",
    "tls_cert_file",
    "tls_key_file",
    "tls_disable",
    "tls_min_version",
    "tls_max_version",
    "tls_client_ca_file",
    "tls_require_and_verify_client_cert",
    "tls_disable_client_certs",
    "max_connections",
    "max_connections_per_client",
    "max_request_size",
    "http_read_timeout",
    "http_read_header_timeout",
    "http_idle_timeout",
    "x_forwarded_for_authorized_addrs",
    "x_forwarded_for_hop_skips",
    "x_forwarded_for_reject_not_authorized",
    "x_forwarded_for_reject_not_present",
];
/// Keys of Vault's that mean nothing here, and why.
pub(super) const LISTENER_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("cluster_address", "servers do not talk to one another"),
    ("http_write_timeout", "a connection that takes nothing is closed as an idle one"),
    ("max_request_duration", "every wait of a request is bounded by itself"),
    ("telemetry", "metrics are served at sys/metrics"),
    ("tls_cipher_suites", "those of TLS 1.3 are fixed"),
    ("tls_prefer_server_cipher_suites", "those of TLS 1.3 are fixed"),
];

/// The largest body that a listener can be told to take, and the smallest limit.
const BODY_MAX: i64 = 32 << 20;
const BODY_MIN: i64 = 1 << 10;
/// The longest that a client can be waited for.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);

impl Reader<'_> {
    /// Reads one listener.
    pub(super) fn listener(&mut self, block: Block<'_>) -> Read<Listener> {
        if block.label != "tcp" {
            let message = format!("listener {:?}: expected \"tcp\"", block.label);
            return Err(HclError::new(block.at, message));
        }
        let (mut address, mut cert, mut key, mut plain) = (None, None, None, None);
        let (mut clients, mut required) = (None, None);
        let mut connections_max = CONNECTIONS_MAX;
        let mut per_client_max = CONNECTIONS_PER_CLIENT_MAX;
        let mut limits = Limits::default();
        let mut forwarded = Forwarded::default();
        for entry in &block.body.entries {
            if let Some((key, why)) = LISTENER_WITHOUT_EFFECT.iter().find(|(name, _)| *name == entry.key) {
                self.warn(entry.at, &format!("{key:?} has no effect: {why}"));
                continue;
            }
            if !self.knows(entry, LISTENER) {
                continue;
            }
            match entry.key.as_str() {
                "address" => address = Some(socket_address(entry)?),
                "tls_cert_file" => cert = Some(path(entry)?),
                "tls_key_file" => key = Some(path(entry)?),
                "tls_disable" if flag(entry)? => plain = Some(entry.at),
                "tls_client_ca_file" => clients = Some(path(entry)?),
                "tls_require_and_verify_client_cert" if flag(entry)? => required = Some(entry.at),
                "tls_disable_client_certs" if flag(entry)? => {
                    self.warn(entry.at, "client certificates are asked for only with \"tls_client_ca_file\"");
                }
                "tls_min_version" | "tls_max_version" => tls13(entry)?,
                "max_connections" => connections_max = count(entry)?,
                "max_connections_per_client" => per_client_max = count(entry)?,
                "max_request_size" => limits.body_bytes_max = request_size(entry)?,
                "http_read_timeout" => limits.body_time = patience(entry)?,
                "http_read_header_timeout" => limits.headers = patience(entry)?,
                "http_idle_timeout" => limits.idle = patience(entry)?,
                name if name.starts_with("x_forwarded_for_") => forwarded.take(entry)?,
                // Flags that are not set.
                _ => drop(flag(entry)?),
            }
        }
        let address = address.ok_or_else(|| missing(block, "address", "a host and port"))?;
        if let (Some(at), None) = (required, &clients) {
            let message = "\"tls_require_and_verify_client_cert\" needs \"tls_client_ca_file\"";
            return Err(HclError::new(at, message));
        }
        let tls = match (plain, cert, key) {
            (None, Some(cert), Some(key)) => {
                Some(TlsFiles { cert, key, clients, clients_required: required.is_some() })
            }
            (None, None, _) => {
                return Err(missing(block, "tls_cert_file", "the path of a PEM certificate chain"));
            }
            (None, _, None) => return Err(missing(block, "tls_key_file", "the path of a PEM private key")),
            (Some(at), ..) if required.is_some() => {
                let message = "\"tls_disable\" leaves no certificate to require of clients".to_owned();
                return Err(HclError::new(at, message));
            }
            (Some(_), ..) if address.ip().is_loopback() => None,
            (Some(at), ..) => {
                let message =
                    format!("\"tls_disable\" is for loopback addresses only, and {address} is none");
                return Err(HclError::new(at, message));
            }
        };
        let connections_per_client_max = per_client_max.min(connections_max);
        let proxies = forwarded.proxies(block.at)?.map(Arc::new);
        Ok(Listener { address, tls, connections_max, connections_per_client_max, limits, proxies })
    }
}

fn request_size(entry: &Entry) -> Read<usize> {
    match entry.as_int()? {
        bytes @ BODY_MIN..=BODY_MAX => usize::try_from(bytes).map_err(|_| wrong(entry, "a number of bytes")),
        _ => Err(wrong(entry, "a number of bytes from 1024 to 33554432")),
    }
}

/// How long a client is waited for.
fn patience(entry: &Entry) -> Read<Duration> {
    match entry.as_duration()? {
        time if time < Duration::from_secs(1) || time > PATIENCE_MAX => {
            Err(wrong(entry, "a duration from \"1s\" to \"1h\""))
        }
        time => Ok(time),
    }
}

fn tls13(entry: &Entry) -> Read<()> {
    match entry.as_str()? {
        "tls13" => Ok(()),
        _ => Err(wrong(entry, "\"tls13\": other versions are not spoken")),
    }
}

fn socket_address(entry: &Entry) -> Read<SocketAddr> {
    let expected = || wrong(entry, "a host and port, such as \"127.0.0.1:8200\" or \"[::]:8200\"");
    let text = entry.as_str()?;
    match text.parse() {
        Ok(address) => Ok(address),
        // A name is resolved once, here: what is listened on does not change under way.
        Err(_) => text.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(expected),
    }
}
