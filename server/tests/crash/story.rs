//! The lives of one store: unseal, write, die, check, and again.

use std::path::Path;

use coffer_core::failpoint::Step;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::claims::Ledger;
use crate::common::{BINARY, Server};
use crate::load::{Notes, WRITERS};
use crate::order::Order;
use crate::vault::Vault;

/// The steps that the writers' load comes by.
const STEPS: [Step; 17] = [
    Step::BeforeIntent,
    Step::AuditBeforeAppend,
    Step::AuditAppended,
    Step::IntentWritten,
    Step::Begun,
    Step::BeforeCommit,
    Step::CommitterBeforeWrite,
    Step::CommitterBeforeSync,
    Step::CommitterAfterSync,
    Step::CommitterDurable,
    Step::Committed,
    Step::EngineCommitted,
    Step::TokensKilled,
    Step::BeforeCompletion,
    Step::CompletionWritten,
    Step::BeforeReply,
    Step::Anchored,
];

/// The number in an environment variable, or another.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |n| n.parse().unwrap())
}

/// How a round's order follows from its seed.
fn order(seed: u64, step: Step) -> Order {
    let most = match step {
        // Once a second.
        Step::Anchored => 2,
        // One operation in ten.
        Step::TokensKilled => 10,
        _ => 120,
    };
    Order { step: Some(step), count: StdRng::seed_from_u64(seed).random_range(1..=most) }
}

/// `COFFER_CRASHES` rounds, beginning with the seed `COFFER_CRASH_SEED`. The order and each writer's choices follow from a
/// round's seed; how the writers' requests meet does not.
pub(crate) fn kills() {
    let program = std::env::current_exe().unwrap();
    let (vault, mut server) = Vault::new(&program);
    let mut ledger = Ledger::new(vault.bed.path("audit/audit.log"));
    let (first, rounds) = (number("COFFER_CRASH_SEED", 0), number("COFFER_CRASHES", STEPS.len() as u64));
    let mut acknowledged = 0;
    for seed in first..first + rounds {
        let step = STEPS[usize::try_from(seed).unwrap() % STEPS.len()];
        let order = order(seed, step);
        let place = format!("seed {seed}, step and time {order}");
        order.give(&vault.order);
        let notes = vault.write(&server, seed, seed, None);
        vault.died(&mut server, order, &place);
        acknowledged += notes.iter().map(|notes| notes.acknowledged).sum::<usize>();
        server = vault.start();
        vault.unseal(&server);
        let wrong = vault.runtime.block_on(ledger.compare(&vault.client(&server), notes));
        println!("crash: {place}: {acknowledged} operations acknowledged so far");
        assert!(wrong.is_empty(), "{place}: {wrong:#?}");
        vault.verify_log(&server, &place);
    }
    assert!(acknowledged > 0, "there was no load");
    finish(&vault, &server, &mut ledger);
}

/// Opens everything: by the API, and row by row by bringing all of them under new keys.
pub(crate) fn finish(vault: &Vault, server: &Server, ledger: &mut Ledger) {
    let client = vault.client(server);
    vault.runtime.block_on(async {
        crate::ceremonies::rewrapped(&client).await;
        let wrong = ledger.everything(&client).await;
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

/// The same load and the same orders given to the binary that ships: it lives.
pub(crate) fn ships_unarmed() {
    let (vault, mut server) = Vault::new(Path::new(BINARY));
    for (round, step) in Step::ALL.iter().enumerate() {
        Order { step: Some(*step), count: 1 }.give(&vault.order);
        let notes: Vec<Notes> = vault.write(&server, round as u64, 0, Some(3));
        let done: usize = notes.iter().map(|notes| notes.acknowledged).sum();
        assert_eq!(done as u64, WRITERS * 3, "{step:?}");
    }
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(server.end().0, Some(0));
}

/// Only tests call what arms the steps.
pub(crate) fn nothing_arms() {
    let root = coffer_fuzz::workspace().join("server");
    let mut dirs = vec![root.join("src")];
    for entry in std::fs::read_dir(root).unwrap() {
        dirs.extend(Some(entry.unwrap().path().join("src")).filter(|dir| dir.is_dir()));
    }
    let mut reached = String::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if !path.ends_with("core/src/failpoint.rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let words = ["failpoint::arm", "{arm,", "{arm}", " arm,", " arm}", "AtStep"];
                let arms = text.contains("failpoint") && words.iter().any(|word| text.contains(word));
                assert!(!arms, "{}", path.display());
                reached.push_str(&text);
            }
        }
    }
    for step in Step::ALL {
        assert!(reached.contains(&format!("failpoint::reach(Step::{step:?})")), "{step:?} is nowhere");
        let died_at = STEPS.contains(step)
            || crate::orphan::STEPS.contains(step)
            || crate::ceremonies::STEPS.contains(step);
        assert!(died_at, "nothing here is ended at {step:?}");
    }
}
