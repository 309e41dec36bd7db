//! Fuzz targets of stored bytes, as somebody who can write to the store may have left them.

use coffer_fuzz::{Target, kind, text};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::boot::SealConfig;
use crate::envelope::{Key, needs, open_secret, open_system, rewrap_secret, unwrap_key};
use crate::keyring::KeyringRecord;
use crate::log::{LogRow, Position};
use crate::rewrap::RewrapStatus;
use crate::stream::{StreamRow, TrimRow};

const AT: &[u8] = b"a place";
/// What the corpus holds was sealed under this key, at that place.
const PLAIN: &[u8] = b"the plaintext";

fn key() -> Key {
    Key::from_slice(&[7; 32]).unwrap()
}

#[test]
fn only_a_row_that_was_sealed_opens() {
    let target = Target::new("row").words(&["\u{1}", "\u{2}", "\u{3}", "\0\0\0\u{1}"]).runs(3_000);
    let sealed: Vec<Vec<u8>> = target.corpus().into_iter().map(|(_, row)| row).collect();
    target.run(|input| {
        let key = key();
        let opened = [open_system(&key, AT, input).ok(), open_secret(&key, AT, input).ok()];
        let unwrapped = unwrap_key(&key, AT, input);
        for plain in opened.iter().flatten() {
            assert_eq!(plain.expose(), PLAIN);
        }
        assert!(unwrapped.as_ref().is_none_or(|key| key.expose() == &[9; 32]));
        let any = opened.iter().any(Option::is_some) || unwrapped.is_some();
        // The format byte says which of the three to try, so it alone may differ.
        let known = sealed.iter().any(|row| !row.is_empty() && row.get(1..) == input.get(1..));
        assert!(!any || known, "a row that nobody sealed");
        if let Ok(moved) = rewrap_secret(&key, &key, 2, AT, input) {
            // Only the wrapped key is looked at: damage to the rest stays what it was.
            assert_eq!(open_secret(&key, AT, &moved).is_ok(), opened[1].is_some());
        }
        let needs = needs(input)
            .map_or_else(|why| kind(&why), |needs| format!("{needs:?}").chars().take(6).collect());
        format!("{any} {needs} {}", input.len().min(120))
    });
}

/// What is read is written as it would be read again.
fn steady<T: DeserializeOwned + Serialize>(input: &[u8]) -> bool {
    let Ok(record) = serde_json::from_slice::<T>(input) else { return false };
    let once = serde_json::to_vec(&record).unwrap();
    let again = serde_json::to_vec(&serde_json::from_slice::<T>(&once).unwrap()).unwrap();
    assert_eq!(text(&once), text(&again));
    true
}

#[test]
fn records_outside_the_envelope_read_back_as_they_are_written() {
    let words = [
        "format",
        "kind",
        "shamir",
        "threshold",
        "shares",
        "needed",
        "nonce",
        "keys",
        "wrapped",
        "mount",
        "proof",
        "seq",
        "void",
    ];
    Target::new("boot-record").words(&words).run(|input| {
        let seal = SealConfig::parse(input);
        if let Ok(config) = &seal {
            assert_eq!(SealConfig::parse(&config.to_bytes()).ok().as_ref(), Some(config));
            assert!((1..=config.threshold.shares()).contains(&config.threshold.needed()));
        }
        let read = [
            steady::<KeyringRecord>(input),
            steady::<LogRow>(input),
            steady::<StreamRow>(input),
            steady::<TrimRow>(input),
            steady::<RewrapStatus>(input),
        ];
        format!("{} {read:?}", seal.is_ok())
    });
}

#[test]
fn a_position_reads_back() {
    let words = [".", "-", "00112233445566778899aabbccddeeff", "18446744073709551615", "+1"];
    Target::new("log-position").words(&words).run(|input| {
        let Ok(position) = text(input).parse::<Position>() else { return "refused".into() };
        assert_eq!(position.to_string().parse(), Ok(position.clone()));
        format!("{}", position.to_string().split('.').count())
    });
}
