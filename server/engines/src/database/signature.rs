//! How an account is known to be this vault's: its name proves it. Seven of its random characters are not random but a MAC of
//! all the others, under a key that only this vault has, for this mount and connection.
//!
//! Nothing has to be written at the database for that, so there is no moment at which an account is there and not known as
//! the vault's. Names by a template of the connection's own have no place for it: they are not recognised, and so never
//! taken for an orphan.

use coffer_barrier::MountId;
use coffer_core::token::HmacKey;

use crate::ReadView;

/// 62^7 is more than 2^41: no foreign account has such a name by accident.
const CHARS: usize = 7;
const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Shorter names need all of their random characters.
const NAME_MIN: usize = 24;
/// The time at the end of long names: seconds, for the next 250 years.
const TIME_DIGITS: usize = 10;

/// Signs names of accounts of one connection, and knows them again.
pub(super) struct Signer<'a> {
    key: HmacKey,
    mount: MountId,
    connection: &'a str,
}

impl<'a> Signer<'a> {
    pub(super) fn of(view: &ReadView<'_>, connection: &'a str) -> Self {
        Self { key: view.accounts_key(), mount: view.mount(), connection }
    }

    /// Signs a name made by `coffer_core::template::username`.
    pub(super) fn sign(&self, mut name: String) -> String {
        if let Some((start, end)) = place(&name) {
            let signature = self.signature(&name[..start], &name[end..]);
            name.replace_range(start..end, &signature);
        }
        name
    }

    /// Whether the name was signed here.
    pub(super) fn knows(&self, name: &str) -> bool {
        place(name)
            .is_some_and(|(start, end)| name[start..end] == *self.signature(&name[..start], &name[end..]))
    }

    fn signature(&self, before: &str, after: &str) -> String {
        let parts = [self.mount.as_bytes(), self.connection.as_bytes(), before.as_bytes(), after.as_bytes()];
        let mac = self.key.mac(&parts.map(|part| part as &[u8]));
        mac.iter().take(CHARS).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
    }
}

/// Where in a name the signature stands: at the end of the random part, before the time if there is one.
fn place(name: &str) -> Option<(usize, usize)> {
    if !name.is_ascii() || name.len() < NAME_MIN || !name.starts_with("v-") {
        return None;
    }
    let end = match name.rsplit_once('-') {
        Some((head, time)) if time.len() == TIME_DIGITS && time.bytes().all(|c| c.is_ascii_digit()) => {
            head.len()
        }
        _ => name.len(),
    };
    let start = end.checked_sub(CHARS)?;
    name.as_bytes()[start..end].iter().all(u8::is_ascii_alphanumeric).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use coffer_core::template;
    use coffer_core::time::Timestamp;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_521_600);

    fn signer(key: u8, connection: &str) -> Signer<'_> {
        Signer { key: HmacKey::new([key; 32]), mount: MountId::SYSTEM, connection }
    }

    #[test]
    fn a_name_proves_whose_it_is() {
        for max in [63, 32] {
            for _ in 0..200 {
                let plain = template::username("token-o", "orders-rw", max, NOW, &mut rand::rng());
                let mine = signer(1, "db").sign(plain.clone());
                assert_eq!(mine.len(), plain.len());
                assert!(signer(1, "db").knows(&mine), "{mine}");
                assert!(!signer(2, "db").knows(&mine) && !signer(1, "other").knows(&mine), "{mine}");
                let mut changed = mine.clone();
                changed.replace_range(2..3, "!");
                assert!(!signer(1, "db").knows(&changed), "{changed}");
                assert_eq!(signer(1, "db").sign(mine.clone()), mine, "signing again changes nothing");
            }
        }
    }

    #[test]
    fn no_other_name_is_taken_for_ones_own() {
        let foreign = [
            "",
            "postgres",
            "v-",
            "v-token-app-abcdefghijklmnopqrst-1795521600",
            "v-ü-aaaaaaaaaaaaaaaaaaaaaaaaaa",
        ];
        for name in foreign {
            assert!(!signer(1, "db").knows(name), "{name}");
        }
        // Sixteen characters have no room: such names are not recognised.
        let short = template::username("t", "r", 16, NOW, &mut rand::rng());
        assert_eq!(signer(1, "db").sign(short.clone()), short);
        assert!(!signer(1, "db").knows(&short));
    }
}
