//! Address blocks that a token or a secret id is bound to.
//!
//! Kept as they were written, because clients compare what they read with what they wrote.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The most blocks of a list.
const BLOCKS_MAX: usize = 256;

/// A list of blocks; an empty one binds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub(crate) struct Cidrs(Vec<(String, IpNet)>);

/// Which entry of a list is no address block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CidrError {
    /// Neither an address nor a block.
    #[error("invalid CIDR address: {0}")]
    Block(String),
    /// Longer than the limit.
    #[error("more than {BLOCKS_MAX} CIDR blocks")]
    TooMany,
}

impl TryFrom<Vec<String>> for Cidrs {
    type Error = CidrError;

    fn try_from(texts: Vec<String>) -> Result<Self, CidrError> {
        if texts.len() > BLOCKS_MAX {
            return Err(CidrError::TooMany);
        }
        let mut blocks: Vec<(String, IpNet)> = Vec::with_capacity(texts.len());
        for text in texts {
            let block = block(&text).ok_or_else(|| CidrError::Block(shown(&text)))?;
            if blocks.iter().all(|(known, _)| *known != text) {
                blocks.push((text, block));
            }
        }
        Ok(Self(blocks))
    }
}

impl From<Cidrs> for Vec<String> {
    fn from(cidrs: Cidrs) -> Self {
        cidrs.0.into_iter().map(|(text, _)| text).collect()
    }
}

/// A block, or a single address.
fn block(text: &str) -> Option<IpNet> {
    if text.contains('/') { IpNet::from_str(text).ok() } else { Some(IpAddr::from_str(text).ok()?.into()) }
}

/// What an error may repeat of a text.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

impl Cidrs {
    /// Just this address.
    pub(crate) fn only(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self(vec![(address.to_string(), address.into())])
    }

    /// Whether nothing is bound.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a client at `address` is let in. An IPv4 address that came in over IPv6 is taken as what it is.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.is_empty() || self.0.iter().any(|(_, block)| block.contains(&address))
    }

    /// Whether each block lies in one of `outer`'s. An `outer` that binds nothing has room for all.
    pub(crate) fn within(&self, outer: &Self) -> bool {
        let fits = |block: &IpNet| outer.0.iter().any(|(_, around)| around.contains(block));
        outer.is_empty() || self.0.iter().all(|(_, block)| fits(block))
    }

    /// As they were written.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.0.iter().map(|(text, _)| text.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Cidrs {
        Cidrs::try_from(texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn an_address_is_let_in_by_any_block_around_it() {
        let list = cidrs(&["10.0.0.0/8", "127.0.0.1", "fd00::/8"]);
        for (address, fine) in [
            ("10.255.0.1", true),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("::ffff:10.0.0.1", true),
            ("fd00::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(list.admits(address.parse().unwrap()), fine, "{address}");
        }
        assert!(Cidrs::default().admits("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn lists_are_read_back_as_they_were_written() {
        let list = cidrs(&["10.0.0.7/8", "127.0.0.1", "127.0.0.1"]);
        assert_eq!(list.texts(), ["10.0.0.7/8", "127.0.0.1"]);
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<Cidrs>(&json).unwrap(), list);
    }

    #[test]
    fn rubbish_is_refused() {
        for bad in ["rubbish", "", "1.2.3.4/99", "1.2.3.4/", "10.0.0.0/8,127.0.0.1"] {
            assert!(Cidrs::try_from(vec![bad.to_owned()]).is_err(), "{bad}");
        }
        assert_eq!(Cidrs::try_from(vec![String::from("10.0.0.1"); 257]), Err(CidrError::TooMany));
    }

    #[test]
    fn a_list_is_within_another_if_every_block_is() {
        let outer = cidrs(&["10.0.0.0/8", "192.168.0.0/16"]);
        assert!(cidrs(&["10.1.0.0/16", "192.168.7.7"]).within(&outer));
        assert!(!cidrs(&["10.0.0.0/7"]).within(&outer));
        assert!(!cidrs(&["10.1.0.0/16", "172.16.0.1"]).within(&outer));
        assert!(cidrs(&["172.16.0.1"]).within(&Cidrs::default()));
    }
}
