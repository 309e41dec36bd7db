//! A server that is killed at each named step of a write, under load and in ceremonies, and what must be true afterwards.
//!
//! This executable is two things: the tests, and (with `server` as its first argument) the server of the tests, which is
//! the shipped one with the steps armed. That is why it has no test harness. The binary that ships cannot be armed.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]
#![allow(clippy::print_stdout, reason = "it speaks as a test harness does")]

#[path = "../binary/bed.rs"]
#[allow(dead_code, reason = "shared with the tests of the binary")]
mod bed;
mod ceremonies;
mod claims;
#[path = "../binary/common.rs"]
#[allow(dead_code, reason = "shared with the tests of the binary")]
mod common;
mod forged;
mod load;
mod mass;
mod once;
mod order;
mod orphan;
mod rotation;
#[path = "../../engines/tests/support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the database engine")]
mod servers;
mod story;
mod vault;

use std::process::ExitCode;

const TESTS: [(&str, fn()); 17] = [
    ("a_server_killed_at_any_step_of_a_write_keeps_its_word", story::kills),
    ("a_token_whose_end_was_cut_off_is_dead_with_its_line_or_alive_with_it", ceremonies::token_line),
    ("a_mount_whose_end_was_cut_off_is_there_whole_or_goes", ceremonies::unmount),
    ("a_rotation_that_was_cut_off_loses_no_row", ceremonies::rotate),
    ("of_the_keys_of_a_rekey_that_was_cut_off_exactly_one_set_opens", ceremonies::rekey),
    ("a_start_that_was_cut_off_is_begun_again", ceremonies::start),
    ("an_initialisation_that_was_cut_off_is_there_or_not", ceremonies::initialise),
    ("a_secret_id_for_one_login_grants_one_token_whenever_the_server_dies", once::secret_id),
    ("a_wrapped_reply_is_given_out_once_whenever_the_server_dies", once::wrapped),
    ("no_query_fails_while_passwords_rotate_and_the_server_dies", rotation::no_failed_query),
    (
        "a_reader_that_does_not_acknowledge_keeps_his_login_to_the_end_of_the_grace",
        rotation::grace_to_its_end,
    ),
    ("leases_that_end_together_are_gone_also_when_the_server_dies_over_them", mass::gone),
    ("no_account_is_without_a_lease_whenever_the_server_dies", orphan::kills),
    ("a_server_that_stood_still_while_another_took_over_has_no_effect", orphan::stops),
    ("what_is_lost_or_forged_is_noticed", forged::noticed),
    ("the_binary_that_ships_cannot_be_told_to_die", story::ships_unarmed),
    ("nothing_that_ships_arms_a_step_and_every_step_is_somewhere", story::nothing_arms),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "server") {
        order::obey();
        return coffer::run();
    }
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, test) in &chosen {
        let ended = std::thread::spawn(*test).join();
        failed += usize::from(ended.is_err());
        println!("test {name} ... {}", if ended.is_ok() { "ok" } else { "FAILED" });
    }
    let (passed, out) = (chosen.len() - failed, TESTS.len() - chosen.len());
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {out} filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
