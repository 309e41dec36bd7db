//! A listener's `x_forwarded_for_*`: Vault's names, and Vault's defaults.

use coffer_api::TrustedProxies;
use coffer_core::hcl::{Entry, HclError, Position, Value};
use ipnet::IpNet;

use super::read::{Read, flag, wrong};

/// The most proxies, and the most hops.
const PROXIES_MAX: usize = 256;
const HOPS_MAX: usize = 16;

/// What was said so far.
#[derive(Default)]
pub(super) struct Forwarded {
    authorized: Option<Vec<IpNet>>,
    hop_skips: usize,
    let_others: bool,
    let_without: bool,
    said: bool,
}

impl Forwarded {
    /// Takes one key.
    pub(super) fn take(&mut self, entry: &Entry) -> Read<()> {
        self.said = true;
        match entry.key.as_str() {
            "x_forwarded_for_authorized_addrs" => self.authorized = Some(networks(entry)?),
            "x_forwarded_for_hop_skips" => {
                let hops = usize::try_from(entry.as_int()?).ok().filter(|n| *n <= HOPS_MAX);
                self.hop_skips = hops.ok_or_else(|| wrong(entry, "a number from 0 to 16"))?;
            }
            "x_forwarded_for_reject_not_authorized" => self.let_others = !flag(entry)?,
            "x_forwarded_for_reject_not_present" => self.let_without = !flag(entry)?,
            _ => return Err(wrong(entry, "a key that is known")),
        }
        Ok(())
    }

    /// The proxies, if there are any.
    pub(super) fn proxies(self, at: Position) -> Read<Option<TrustedProxies>> {
        match self.authorized {
            None if self.said => {
                let message = "expected \"x_forwarded_for_authorized_addrs\" beside the other keys of it";
                Err(HclError::new(at, message))
            }
            None => Ok(None),
            Some(authorized) => Ok(Some(TrustedProxies {
                authorized,
                hop_skips: self.hop_skips,
                reject_not_authorized: !self.let_others,
                reject_not_present: !self.let_without,
            })),
        }
    }
}

/// Addresses and networks, in a list or in one text with commas.
fn networks(entry: &Entry) -> Read<Vec<IpNet>> {
    let expected = || wrong(entry, "a list of addresses or networks, such as \"10.0.0.0/8\"");
    let texts: Vec<&str> = match &entry.value {
        Value::String(text) => text.split(',').map(str::trim).filter(|t| !t.is_empty()).collect(),
        _ => entry.as_strings()?,
    };
    if texts.is_empty() || texts.len() > PROXIES_MAX {
        return Err(expected());
    }
    let one = |text: &str| -> Option<IpNet> {
        if text.contains('/') {
            text.parse().ok()
        } else {
            Some(text.parse::<std::net::IpAddr>().ok()?.into())
        }
    };
    texts.into_iter().map(|text| one(text).ok_or_else(expected)).collect()
}
