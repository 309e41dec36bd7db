//! Vault's flags have one dash (`-format=json`); ours have two. Both are understood.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::CommandFactory;

use super::Cli;

/// Gives a second dash to every argument that is one of our long flags with a single one. What follows `--` is
/// left alone, and so is whatever is no flag of ours: an accessor may begin with a dash.
pub(crate) fn vaults(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut known = BTreeSet::from(["help".to_owned(), "version".to_owned()]);
    collect(&Cli::command(), &mut known);
    let mut ours = true;
    arguments
        .map(|argument| {
            ours &= argument != "--";
            match argument.to_str().and_then(|text| text.strip_prefix('-')) {
                Some(flag) if ours && known.contains(flag.split('=').next().unwrap_or(flag)) => {
                    OsString::from(format!("--{flag}"))
                }
                _ => argument,
            }
        })
        .collect()
}

fn collect(command: &clap::Command, known: &mut BTreeSet<String>) {
    let long = |argument: &clap::Arg| argument.get_long().filter(|name| name.len() > 1).map(str::to_owned);
    known.extend(command.get_arguments().filter_map(long));
    command.get_subcommands().for_each(|command| collect(command, known));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_or_two() {
        let line = "coffer kv get -format=json -field password -vGh -n 5 --cas 1 -- -field";
        let got = vaults(line.split(' ').map(OsString::from));
        let wanted = "coffer kv get --format=json --field password -vGh -n 5 --cas 1 -- -field";
        assert_eq!(got, wanted.split(' ').map(OsString::from).collect::<Vec<_>>());
    }
}
