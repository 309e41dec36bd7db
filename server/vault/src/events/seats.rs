//! How many may listen at a time, in all and by token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coffer_core::token::TokenHash;
use prometheus::IntGauge;

use crate::deps::SubscriberLimits;
use crate::error::Fail;

/// The seats.
#[derive(Clone)]
pub(super) struct Seats(Arc<Inner>);

struct Inner {
    limits: SubscriberLimits,
    taken: Mutex<Taken>,
    gauge: IntGauge,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_token: HashMap<TokenHash, usize>,
}

/// One seat, free again when dropped.
pub(crate) struct Seat {
    seats: Seats,
    token: TokenHash,
}

impl Seats {
    pub(super) fn new(limits: SubscriberLimits, gauge: IntGauge) -> Self {
        Self(Arc::new(Inner { limits, taken: Mutex::default(), gauge }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat, or which limit there is none for.
    pub(super) fn take(&self, token: TokenHash) -> Result<Seat, Fail> {
        let SubscriberLimits { in_all, per_token, .. } = self.0.limits;
        let mut taken = self.taken();
        if taken.all >= in_all {
            return Err(Fail::Unavailable(format!("more than {in_all} event subscribers and waiting reads")));
        }
        let own = taken.by_token.entry(token).or_default();
        if *own >= per_token {
            let text = format!("more than {per_token} event subscribers and waiting reads of one token");
            return Err(Fail::TooManyRequests(text));
        }
        *own += 1;
        taken.all += 1;
        self.0.gauge.inc();
        drop(taken);
        Ok(Seat { seats: self.clone(), token })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_token.get_mut(&self.token) {
            *own -= 1;
            if *own == 0 {
                taken.by_token.remove(&self.token);
            }
        }
        self.seats.0.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_the_limits_say() {
        let limits = SubscriberLimits { in_all: 3, per_token: 2, ..SubscriberLimits::default() };
        let seats = Seats::new(limits, IntGauge::new("n", "n").unwrap());
        let hash = |n: u8| TokenHash::from_bytes([n; 32]);
        let first = seats.take(hash(1)).unwrap();
        let _second = seats.take(hash(1)).unwrap();
        assert!(matches!(seats.take(hash(1)), Err(Fail::TooManyRequests(_))));
        let _third = seats.take(hash(2)).unwrap();
        assert!(matches!(seats.take(hash(3)), Err(Fail::Unavailable(_))));
        drop(first);
        assert!(seats.take(hash(1)).is_ok());
        assert_eq!(seats.taken().by_token.len(), 2);
    }
}
