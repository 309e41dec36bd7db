//! Where the server is, and what a path under it looks like on the wire. Never resolves names.

use crate::ClientError;
use http::Uri;

/// A parsed server address: scheme, host, port, nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        // Before anything else, because what is refused is repeated.
        if text.contains('@') {
            return Err(ClientError::Config("address must not contain a login".to_owned()));
        }
        let bad = |why: &str| ClientError::Config(format!("address {text:?}: {why}"));
        let uri: Uri = text.parse().map_err(|_| bad("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("needs https:// (or http:// on loopback)")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("must not have a path"));
        }
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        let host = authority.host();
        if authority.as_str().len() > host.len() && authority.port_u16().is_none() {
            return Err(bad("has no valid port"));
        }
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(ip)) if ip.parse::<std::net::Ipv6Addr>().is_ok() => ip.to_owned(),
            None if !host.is_empty() && !host.contains(['[', ']', ':']) => host.to_owned(),
            _ => return Err(bad("has no valid host")),
        };
        if !tls && !is_loopback(&host) {
            return Err(bad("plain http is accepted for loopback only"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { host, port, tls })
    }

    /// What goes into the `Host` header.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `/v1/<path>`, every byte that a URL cannot carry escaped.
pub(crate) fn target(path: &str, query: &[(&str, &str)]) -> Result<String, ClientError> {
    let bad = |why| ClientError::Path { path: path.to_owned(), why };
    if path.is_empty() || path.starts_with('/') {
        return Err(bad("must not be empty or start with a slash"));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(bad("is longer than 1024 bytes"));
    }
    // A proxy may resolve dots even when they are escaped, and so reach another path.
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(bad("has a . or .. segment"));
    }
    let mut out = String::with_capacity(path.len() + 4);
    out.push_str("/v1/");
    escape(path, b"-._~/*+:@!$&'(),;=", &mut out);
    for (i, (key, value)) in query.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        escape(key, b"-._~", &mut out);
        out.push('=');
        escape(value, b"-._~", &mut out);
    }
    Ok(out)
}

const PATH_BYTES_MAX: usize = 1024;

fn escape(text: &str, plain: &[u8], out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(hex_digit(byte >> 4));
            out.push(hex_digit(byte & 15));
        }
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from(if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let a = Address::parse("https://coffer.coffer-system.svc:8200").unwrap();
        assert_eq!((a.host.as_str(), a.port, a.tls), ("coffer.coffer-system.svc", 8200, true));
        let a = Address::parse("https://[2001:db8::1]:8200/").unwrap();
        assert_eq!((a.host.as_str(), a.authority().as_str()), ("2001:db8::1", "[2001:db8::1]:8200"));
        assert!(!Address::parse("http://127.0.0.1:8200").unwrap().tls);
        assert!(!Address::parse("http://[::1]:8200").unwrap().tls);
        for bad in [
            "http://10.0.0.1",
            "coffer:8200",
            "https://u:p@h",
            "https://h/v1",
            "ftp://h",
            "",
            "https://-[:]",
            "https://h:99999",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_with_a_login_is_not_repeated() {
        for login in ["https://user:hunter2@host", "https://user:hunter2@host/v1", "user:hunter2 @host"] {
            let error = Address::parse(login).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn targets() {
        let plain = target("auth/kubernetes/prod/role/shop.api", &[]).unwrap();
        assert_eq!(plain, "/v1/auth/kubernetes/prod/role/shop.api");
        let escaped = target("secret/data/a b?c#d%é", &[("after", "1:2")]).unwrap();
        assert_eq!(escaped, "/v1/secret/data/a%20b%3Fc%23d%25%C3%A9?after=1%3A2");
        for bad in ["", "/x", "a/../b", "a/./b", ".."] {
            assert!(target(bad, &[]).is_err(), "{bad}");
        }
    }
}
