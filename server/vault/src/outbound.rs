//! Where settings may send the vault: a URL that somebody configured must not reach what only this machine can.
//!
//! Loopback, link-local addresses and the metadata services of clouds are refused, whatever name leads there, unless the
//! server's configuration allows them. The check is made on the addresses that are connected to, not on a look-up before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata and host services of clouds that are not link-local: Azure, Alibaba; over IPv6 Google and Oracle.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
];
/// How long a connection may take to be there, and a whole exchange.
const CONNECT: Duration = Duration::from_secs(5);
const EXCHANGE: Duration = Duration::from_secs(10);

/// Which addresses may be gone to. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    allowed: Arc<[IpNet]>,
}

/// An address that is not gone to.
#[derive(Debug, thiserror::Error)]
#[error("{0} leads to an address that is not allowed (outbound_allowed_networks)")]
struct NotAllowed(String);

impl Outbound {
    /// With these blocks, or single addresses, allowed besides what is allowed anyway. The error is the text that is none.
    pub fn allowing<T: AsRef<str>>(blocks: &[T]) -> Result<Self, String> {
        let parsed = |text: &T| {
            let text = text.as_ref();
            let block = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            block.ok_or_else(|| text.to_owned())
        };
        Ok(Self { allowed: blocks.iter().map(parsed).collect::<Result<_, _>>()? })
    }

    /// Whether this address may be gone to.
    fn permits(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        !is_special(address) || self.allowed.iter().any(|block| block.contains(&address))
    }

    /// A client for one `https://` URL: redirects are not followed, no proxy is asked, and only addresses that are
    /// permitted are connected to.
    pub(crate) fn client(
        &self,
        url: &str,
        cas: Option<&[u8]>,
    ) -> Result<(reqwest::Client, reqwest::Url), String> {
        let url: reqwest::Url = url.parse().map_err(|_| "not a URL".to_owned())?;
        // A name that is an address is not looked up.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if let Ok(address) = host.parse::<IpAddr>()
            && !self.permits(address)
        {
            return Err(NotAllowed(host.to_owned()).to_string());
        }
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(self.clone()))
            .connect_timeout(CONNECT)
            .timeout(EXCHANGE);
        if let Some(cas) = cas {
            let certificates =
                reqwest::Certificate::from_pem_bundle(cas).map_err(|_| "the CA is not PEM".to_owned())?;
            builder = builder.tls_certs_only(certificates);
        }
        Ok((builder.build().map_err(|e| chain(&e))?, url))
    }
}

impl Resolve for Outbound {
    fn resolve(&self, name: Name) -> Resolving {
        let own = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let good: Vec<SocketAddr> = found.filter(|address| own.permits(address.ip())).collect();
            if good.is_empty() {
                return Err(NotAllowed(name.as_str().to_owned()).into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    // NAT64 (RFC 6052, 2.1).
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

/// What only this machine can reach, or what answers for all machines alike.
fn is_special(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => {
            let services = match v6.segments() {
                // The services of AWS on an instance: metadata, credentials of pods.
                [0xfd00, 0x0ec2, ..] => true,
                // NAT64 within a network (RFC 8215): where in it an IPv4 address is, only that network knows.
                [0x64, 0xff9b, 1, ..] => true,
                _ => false,
            };
            services || v6.is_unicast_link_local()
        }
    };
    local
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || METADATA.contains(&address)
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_can_reach_is_refused_unless_it_is_allowed() {
        let none = Outbound::default();
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(!none.permits(refused.parse().unwrap()), "{refused}");
        }
        for fine in [
            "10.96.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "8.8.8.8",
            "fd00::1",
            "2001:db8::1",
            "64:ff9b::a60:1",
            "fd20:ce::1",
        ] {
            assert!(none.permits(fine.parse().unwrap()), "{fine}");
        }
        let some = Outbound::allowing(&["127.0.0.0/8"]).unwrap();
        assert!(some.permits("127.0.0.1".parse().unwrap()));
        assert!(some.permits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!some.permits("::1".parse().unwrap()));
        assert!(!some.permits("169.254.169.254".parse().unwrap()));
        let inside = Outbound::allowing(&["64:ff9b:1::/96"]).unwrap();
        assert!(inside.permits("64:ff9b:1::808:808".parse().unwrap()));
    }

    #[test]
    fn addresses_in_urls_are_refused_however_they_are_written() {
        for url in [
            "https://127.0.0.1/jwks",
            "https://127.1/jwks",
            "https://0x7f000001/jwks",
            "https://2130706433/jwks",
            "https://[::1]:8443/jwks",
            "https://[::ffff:169.254.169.254]/jwks",
            "https://user@169.254.169.254/jwks",
        ] {
            let refused = Outbound::default().client(url, None).unwrap_err();
            assert!(refused.contains("not allowed"), "{url}: {refused}");
        }
        assert!(Outbound::default().client("https://example.org/", None).is_ok());
    }
}
