//! Fuzz targets of this room: address blocks, parameters, stored records.

use std::collections::BTreeMap;
use std::net::IpAddr;

use coffer_fuzz::{Target, kind, text};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cidr::Cidrs;
use crate::lease::LeaseEntry;
use crate::mounts::Mount;
use crate::quota::{Quota, Settings};
use crate::token::TokenEntry;
use crate::{codec, params};

/// Two lists of blocks, apart by an empty line.
#[test]
fn what_lies_within_a_list_of_blocks_is_let_in_by_it() {
    let words = [
        "10.0.0.0/8",
        "::/0",
        "0.0.0.0/0",
        "/",
        "/32",
        "/128",
        "::ffff:10.0.0.1",
        "::ffff:0:0/96",
        "fd00::/8",
        "\n",
    ];
    Target::new("cidr").words(&words).run(|input| {
        let given = text(input);
        let list = |part: &str| Cidrs::try_from(part.lines().map(str::to_owned).collect::<Vec<_>>());
        let (one, other) = given.split_once("\n\n").unwrap_or((&given, "10.0.0.0/8"));
        let (one, other) = match (list(one), list(other)) {
            (Ok(one), Ok(other)) => (one, other),
            (Err(why), _) | (_, Err(why)) => return kind(&why),
        };
        let texts = Vec::<String>::from(one.clone());
        assert_eq!(Cidrs::try_from(texts).as_ref(), Ok(&one), "as it was written");
        assert!(one.within(&one) && one.within(&Cidrs::default()));
        let within = !one.is_empty() && one.within(&other);
        let firsts =
            one.texts().into_iter().filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        for address in firsts.chain(["10.1.2.3", "::1", "::ffff:10.1.2.3"].map(|a| a.parse().unwrap())) {
            assert_eq!(one.admits(address), one.admits(address.to_canonical()));
            assert!(!within || !one.admits(address) || other.admits(address), "{address}");
        }
        format!("{within} {} {}", one.texts().len().min(9), one.admits("10.1.2.3".parse().unwrap()))
    });
}

#[test]
fn parameters_are_bounded_and_refusals_hold_no_value() {
    let words = ["p", "hunter2", "a=b", "=", ",", "true", "1h", "-1", "root", "a/b", "x"];
    Target::new("params").words(&words).run(|input| {
        let Ok(Value::Object(body)) = serde_json::from_slice(input) else { return "no object".into() };
        let mut answer = String::new();
        let mut note = |result: Result<usize, crate::error::Fail>| match result {
            Ok(n) => answer.push_str(&n.min(9).to_string()),
            Err(why) => {
                assert!(!why.to_string().contains("hunter2"), "{why}");
                answer.push_str(&kind(&why));
            }
        };
        note(params::text(&body, "p").map(|t| t.map_or(0, str::len)));
        note(params::duration(&body, "p").map(|d| usize::from(d.is_some())));
        note(params::flag(&body, "p").map(|f| usize::from(f.is_some())));
        note(params::number(&body, "p").map(|n| usize::from(n.is_some())));
        note(params::list(&body, "p").map(|l| l.map_or(0, |l| l.len())));
        note(params::policies(&body, "p").map(|l| l.map_or(0, |l| l.len())));
        for labels in [params::labels(&body, "p"), params::pairs(&body, "p")] {
            note(labels.map(|l| {
                let l = l.unwrap_or_default();
                assert!(l.len() <= 64 && l.iter().all(|(k, v)| k.len() <= 512 && v.len() <= 512));
                l.len()
            }));
        }
        let query = |name: &str| Some((name.to_owned(), body.get(name)?.as_str()?.to_owned()));
        let query: BTreeMap<String, String> = ["after", "limit"].into_iter().filter_map(query).collect();
        note(params::page(&query).map(|(_, limit)| {
            assert!((1..=10_000).contains(&limit));
            limit
        }));
        answer
    });
}

/// What is read is written as it would be read again.
fn steady<T: DeserializeOwned + Serialize>(input: &[u8]) -> bool {
    let Ok(record) = codec::decode::<T>(&coffer_core::secret::SecretBytes::new(input.to_vec())) else {
        return false;
    };
    let once = codec::encode(&record).unwrap();
    let again: T = codec::decode(&coffer_core::secret::SecretBytes::new(once.to_vec())).unwrap();
    assert_eq!(text(&once), text(&codec::encode(&again).unwrap()));
    true
}

#[test]
fn stored_records_read_back_as_they_are_written() {
    let words = [
        "\u{1}",
        "\u{2}",
        "hash",
        "accessor",
        "policies",
        "root",
        "ancestors",
        "bound_cidrs",
        "payload",
        "state",
        "Active",
        "kind",
        "path",
    ];
    Target::new("stored").words(&words).run(|input| {
        let read = [
            steady::<TokenEntry>(input),
            steady::<LeaseEntry>(input),
            steady::<Mount>(input),
            steady::<Quota>(input),
            steady::<Settings>(input),
        ];
        assert!(input.first() == Some(&1) || read.iter().all(|read| !read), "of another format");
        format!("{read:?}")
    });
}
