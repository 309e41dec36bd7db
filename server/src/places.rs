//! How many connections each client address holds, and that none holds more than its share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The counts. There is one for each address that has a connection, so there are never more than connections.
#[derive(Clone)]
pub(crate) struct Clients {
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
}

/// One connection's place; given back when dropped.
pub(crate) struct Place {
    clients: Clients,
    ip: IpAddr,
}

impl Clients {
    /// Each address may hold `most`.
    pub(crate) fn new(most: usize) -> Self {
        Self { held: Arc::default(), most }
    }

    /// A place for a connection from there, if it has not got its share yet.
    pub(crate) fn enter(&self, ip: IpAddr) -> Option<Place> {
        let ip = client(ip);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(ip).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { clients: self.clone(), ip })
    }
}

/// Whom an address stands for: of IPv6 its /64, because whoever has one address of it has all of them.
fn client(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.clients.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_holds_more_than_its_share_and_places_come_back() {
        let clients = Clients::new(2);
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = clients.enter(one);
        let second = clients.enter("::ffff:10.0.0.1".parse().unwrap());
        assert!(first.is_some() && second.is_some() && clients.enter(one).is_none());
        assert!(clients.enter(other).is_some());
        let network = |text: &str| clients.enter(text.parse().unwrap());
        let (third, fourth) = (network("2001:db8::1"), network("2001:db8::2:1"));
        assert!(third.is_some() && fourth.is_some() && network("2001:db8::ffff:0:0:3").is_none());
        assert!(network("2001:db8:0:1::1").is_some());
        drop((third, fourth));
        drop(first);
        assert!(clients.enter(one).is_some());
        drop(second);
        assert!(clients.held.lock().unwrap().is_empty());
    }
}
