//! Completion scripts.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Done};

/// Options of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// For which shell.
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs) -> Done {
    clap_complete::generate(args.shell, &mut Cli::command(), "coffer", &mut std::io::stdout().lock());
    Ok(ExitCode::SUCCESS)
}
