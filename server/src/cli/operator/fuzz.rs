//! Fuzz target of a root token that comes under a one-time pad.

use coffer_client::wire::Disclose;
use coffer_fuzz::{Target, kind, text};

use super::root::decode;

/// A pad, then an encoded token, as lines.
#[test]
fn only_a_token_of_plain_characters_comes_out_from_under_its_pad() {
    let words = ["=", "\n", "AAAA", "R0ZyFwwTcTM2IC8jIiZIYlo8Gxs+fAUePws", "4hFqdZBrZfGbxeyUcXxod3Uwnd"];
    Target::new("root-token").words(&words).run(|input| {
        let given = text(input);
        let (pad, encoded) = given.split_once('\n').unwrap_or((&given, ""));
        let token = match decode(encoded, &Disclose::from(pad)) {
            Ok(token) => token,
            Err(why) => return kind(&why),
        };
        assert_eq!(token.expose().len(), pad.len());
        assert!(token.expose().chars().all(|c| c.is_ascii_graphic()));
        format!("{}", pad.len().min(40))
    });
}
