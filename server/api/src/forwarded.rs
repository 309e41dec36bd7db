//! Whose request it is when a proxy passes it on: `X-Forwarded-For`, and only from proxies that were named.
//!
//! The names and the rules of the settings are Vault's (`x_forwarded_for_*` of a listener).

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The most addresses in a chain that are looked at.
const CHAIN_MAX: usize = 64;

/// Which proxies are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Where they are (`x_forwarded_for_authorized_addrs`).
    pub authorized: Vec<IpNet>,
    /// How many of the last addresses of the chain are proxies as well (`x_forwarded_for_hop_skips`).
    pub hop_skips: usize,
    /// Whether others who send the header are refused, rather than taken for the client themselves.
    pub reject_not_authorized: bool,
    /// Whether requests without the header are refused, rather than taken for the proxy's own.
    pub reject_not_present: bool,
}

impl TrustedProxies {
    /// Whether this is one of them.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.authorized.iter().any(|net| net.contains(&peer))
    }

    /// The client, or why the request is refused.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, &'static str> {
        let mut values = headers.get_all("x-forwarded-for").iter().peekable();
        if values.peek().is_none() {
            return if self.reject_not_present {
                Err("missing x-forwarded-for header and configured to reject when not present")
            } else {
                Ok(peer)
            };
        }
        if !self.trusts(peer) {
            return if self.reject_not_authorized {
                Err("client address not authorized for x-forwarded-for and configured to reject connection")
            } else {
                Ok(peer)
            };
        }
        const MALFORMED: &str = "malformed x-forwarded-for header";
        let mut chain = Vec::new();
        for value in values {
            let text = value.to_str().map_err(|_| MALFORMED)?;
            chain.extend(text.split(',').map(str::trim));
        }
        if chain.len() > CHAIN_MAX {
            return Err(MALFORMED);
        }
        // What the client itself wrote is at the front; what the proxies wrote is at the end.
        let at = chain.len().checked_sub(1 + self.hop_skips);
        let at = at
            .ok_or("malformed x-forwarded-for configuration or request: fewer hops than are to be skipped")?;
        chain[at].parse().map_err(|_| MALFORMED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(proxies: &TrustedProxies, peer: &str, values: &[&str]) -> Result<IpAddr, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers)
    }

    #[test]
    fn the_header_counts_only_from_a_named_proxy_and_only_its_own_part() {
        let strict = TrustedProxies {
            authorized: vec!["10.0.0.0/8".parse().unwrap()],
            hop_skips: 0,
            reject_not_authorized: true,
            reject_not_present: true,
        };
        let ip = |text: &str| Ok::<IpAddr, &'static str>(text.parse().unwrap());
        assert_eq!(ask(&strict, "10.1.1.1", &["203.0.113.9"]), ip("203.0.113.9"));
        assert_eq!(ask(&strict, "::ffff:10.1.1.1", &["203.0.113.9"]), ip("203.0.113.9"));
        assert_eq!(
            ask(&strict, "10.1.1.1", &["1.2.3.4, 203.0.113.9"]),
            ip("203.0.113.9"),
            "the client wrote 1.2.3.4"
        );
        assert_eq!(ask(&strict, "10.1.1.1", &["1.2.3.4", "2001:db8::1"]), ip("2001:db8::1"));
        let skipping = TrustedProxies { hop_skips: 1, ..strict.clone() };
        assert_eq!(ask(&skipping, "10.1.1.1", &["203.0.113.9, 10.2.2.2"]), ip("203.0.113.9"));
        assert!(ask(&skipping, "10.1.1.1", &["203.0.113.9"]).is_err());
        for (peer, values) in [
            ("192.0.2.1", &["203.0.113.9"][..]),
            ("10.1.1.1", &[]),
            ("10.1.1.1", &["nonsense"]),
            ("10.1.1.1", &["1.2.3.4:80"]),
        ] {
            assert!(ask(&strict, peer, values).is_err(), "{peer} {values:?}");
        }
        let lenient = TrustedProxies { reject_not_authorized: false, reject_not_present: false, ..strict };
        assert_eq!(ask(&lenient, "192.0.2.1", &["203.0.113.9"]), ip("192.0.2.1"), "not believed");
        assert_eq!(ask(&lenient, "10.1.1.1", &[]), ip("10.1.1.1"));
        let long = vec!["1.1.1.1"; CHAIN_MAX + 1].join(",");
        assert!(ask(&lenient, "10.1.1.1", &[&long]).is_err());
    }
}
