//! Passwords: hashed with bcrypt, away from the async workers, a few at a time.
//!
//! A flood of logins waits here and is turned away when too many wait: reads go on beside it, and memory is bounded.
//! Never keeps a password.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntCounter;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use zeroize::Zeroizing;

use crate::error::{Fail, bad};

/// The work factor of new hashes: that of Vault and OpenBao.
const COST: u32 = 10;
/// The costs that a hash given as such may have. Above, one login would take seconds of a processor.
const COSTS: std::ops::RangeInclusive<u32> = 5..=14;
/// The longest password: bcrypt would leave out what comes after.
const PASSWORD_BYTES_MAX: usize = 72;
/// The most logins that wait for their turn.
const WAITING_MAX: usize = 512;
/// Over how many locks names are spread.
const STRIPES: usize = 256;
/// What is verified for users that there are not: as much work as for one that there is. The hash of 24
/// random bytes that nobody kept, and a match would count for nothing.
const NOBODY: &str = "$2b$10$YQn2CybVw3HRvoZjFTN4eO.ZsRhrFVPRlvnmToy5CSBi5e7M5gKf6";

/// A password's hash as stored.
pub(super) type PasswordHash = Zeroizing<String>;

/// Hashes and verifies.
pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    stripes: [Mutex<()>; STRIPES],
    hashed: IntCounter,
}

impl Passwords {
    /// On at most half of this machine's processors. `hashed` counts all that is computed.
    pub(crate) fn new(hashed: IntCounter) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            slots: Arc::new(Semaphore::new((processors / 2).max(1))),
            waiting: AtomicUsize::new(0),
            stripes: std::array::from_fn(|_| Mutex::default()),
            hashed,
        }
    }

    /// Lets one login of a name pass at a time: whether it is locked is decided after the one before has failed.
    pub(super) async fn turn(&self, name: &str) -> Turn<'_> {
        let sum = name.bytes().fold(0_usize, |sum, b| sum.wrapping_mul(31).wrapping_add(usize::from(b)));
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let waits = Waits(&self.waiting);
        Turn { _waits: waits, _stripe: self.stripes[sum % STRIPES].lock().await }
    }

    /// Fails if too many wait already.
    pub(super) fn check_queue(&self) -> Result<(), Fail> {
        if self.waiting.load(Ordering::Acquire) >= WAITING_MAX {
            return Err(Fail::Unavailable("too many logins at once; try again later".into()));
        }
        Ok(())
    }

    async fn work<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, Fail> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| Fail::Internal("password hashing has ended"))?;
        self.hashed.inc();
        let done = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            job()
        });
        done.await.map_err(|_| Fail::Internal("password hashing died"))
    }

    /// The hash of a new password.
    pub(super) async fn hash(&self, password: Zeroizing<String>) -> Result<PasswordHash, Fail> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(bad(format!("bcrypt: password length exceeds {PASSWORD_BYTES_MAX} bytes")));
        }
        let hashed = self.work(move || bcrypt::hash(password.as_bytes(), COST)).await?;
        hashed.map(Zeroizing::new).map_err(|_| Fail::Internal("a password could not be hashed"))
    }

    /// Whether a password is the one of this hash. Without a hash the answer is no, after the same work.
    pub(super) async fn verify(
        &self,
        password: Zeroizing<String>,
        hash: Option<PasswordHash>,
    ) -> Result<bool, Fail> {
        let known = hash.is_some() && password.len() <= PASSWORD_BYTES_MAX;
        let hash = hash.unwrap_or_else(|| Zeroizing::new(NOBODY.to_owned()));
        let matches = self.work(move || bcrypt::verify(password.as_bytes(), &hash).unwrap_or(false)).await?;
        Ok(matches && known)
    }
}

/// A login's turn; the next one comes when it is dropped.
pub(super) struct Turn<'a> {
    _waits: Waits<'a>,
    _stripe: MutexGuard<'a, ()>,
}

struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes over a hash that somebody else made.
pub(super) fn check_hash(text: &str) -> Result<PasswordHash, Fail> {
    let wrong = || bad("password_hash is not a valid bcrypt hash");
    let parts: bcrypt::HashParts = text.parse().map_err(|_| wrong())?;
    // What does not verify at all would lock its user out without anybody noticing why.
    bcrypt_text(text).ok_or_else(wrong)?;
    let cost = parts.get_cost();
    if cost < *COSTS.start() {
        return Err(bad(format!("bcrypt cost of {cost} is too low, want {} at minimum", COSTS.start())));
    }
    if cost > *COSTS.end() {
        return Err(bad(format!("bcrypt cost of {cost} is too high, want {} at most", COSTS.end())));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// `$2b$10$` and 53 characters of bcrypt's alphabet.
fn bcrypt_text(text: &str) -> Option<()> {
    let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let (cost, tail) = rest.split_once('$')?;
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'.' || c == b'/';
    (cost.len() == 2 && tail.len() == 53 && tail.bytes().all(good)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn nobody_takes_as_much_work_as_somebody_and_has_no_password() {
        let hashed = IntCounter::new("hashed", "hashed").unwrap();
        let passwords = Passwords::new(hashed.clone());
        let hash = passwords.hash(text("right")).await.unwrap();
        assert_eq!(hashed.get(), 1);
        assert!(passwords.verify(text("right"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(text("wrong"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(text("right"), None).await.unwrap());
        assert!(!passwords.verify(text(&"x".repeat(73)), Some(hash.clone())).await.unwrap());
        assert_eq!(hashed.get(), 5);
        // The stand-in is a hash of the same cost that the library really computes.
        let cost = |hash: &str| hash.parse::<bcrypt::HashParts>().unwrap().get_cost();
        assert_eq!(cost(NOBODY), cost(&hash));
        assert!(bcrypt::verify("x", NOBODY).is_ok());
    }

    #[tokio::test]
    async fn a_password_that_bcrypt_would_cut_is_refused_and_verifies_as_nothing() {
        let passwords = Passwords::new(IntCounter::new("hashed", "hashed").unwrap());
        assert_eq!(passwords.hash(text(&"x".repeat(73))).await.unwrap_err().status(), 400);
        let hash = passwords.hash(text(&"x".repeat(72))).await.unwrap();
        assert!(passwords.verify(text(&"x".repeat(72)), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(text(&"x".repeat(73)), Some(hash)).await.unwrap());
    }

    #[test]
    fn hashes_of_others_are_checked() {
        let tail = "abcdefghijklmnopqrstuuZc2U2qLx8Z0V9z2mN0J7iVxJ0Qv2c3e";
        assert!(check_hash(&format!("$2b$10${tail}")).is_ok());
        for (bad, message) in [
            ("$2b$10$abc".to_owned(), "not a valid bcrypt hash"),
            ("".to_owned(), "not a valid bcrypt hash"),
            (format!("$2b$04${tail}"), "too low"),
            (format!("$2b$31${tail}"), "too high"),
            (format!("$1$10${tail}"), "not a valid bcrypt hash"),
            (format!("$2b$10${}", tail.replace('a', "ä")), "not a valid bcrypt hash"),
        ] {
            assert!(check_hash(&bad).unwrap_err().to_string().contains(message), "{bad}");
        }
    }
}
