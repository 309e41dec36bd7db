//! The command line: what an administrator types, on top of `coffer-client`.
//!
//! Tables for people, `--format json` for programs. Secrets come from files and standard input and go to
//! standard output; never into arguments of other processes, the environment or logs.

mod audit;
mod auth_mounts;
mod complete;
mod dashes;
mod database;
mod events;
#[cfg(test)]
mod fuzz;
mod generic;
mod input;
mod kv;
mod lease;
mod login;
mod mount_args;
mod operator;
mod out;
mod policy;
mod policy_explain;
mod secrets;
mod session;
mod token;
mod token_roles;
mod unwrap;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use coffer_client::ClientError;

use out::Out;
pub(crate) use out::complain;
use session::Session;
pub(crate) use session::env;

/// What a command ends in; anyhow, because all that is done with an error is to print it.
type Done = anyhow::Result<ExitCode>;

/// Coffer: a secrets vault for Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "coffer", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options every client command has.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// The server. Also from COFFER_ADDR, VAULT_ADDR or BAO_ADDR.
    #[arg(long, global = true, value_name = "URL")]
    address: Option<String>,
    /// PEM file of the CAs to trust. Also from COFFER_CACERT, VAULT_CACERT or BAO_CACERT; else the system's.
    #[arg(long, global = true, value_name = "FILE")]
    ca_cert: Option<std::path::PathBuf>,
    /// Directory of PEM files of the CAs to trust. Also from COFFER_CAPATH, VAULT_CAPATH or BAO_CAPATH.
    #[arg(long, global = true, value_name = "DIR")]
    ca_path: Option<std::path::PathBuf>,
    /// PEM file of a certificate to show to a server that asks. Also from COFFER_CLIENT_CERT, VAULT_... or BAO_...
    #[arg(long, global = true, value_name = "FILE")]
    client_cert: Option<std::path::PathBuf>,
    /// PEM file of its key. Also from COFFER_CLIENT_KEY, VAULT_... or BAO_...
    #[arg(long, global = true, value_name = "FILE")]
    client_key: Option<std::path::PathBuf>,
    /// The name the server's certificate must have. Also from COFFER_TLS_SERVER_NAME, VAULT_... or BAO_...
    #[arg(long, global = true, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Believe any certificate: whoever is on the way can read everything. Also from COFFER_SKIP_VERIFY, ...
    #[arg(long, global = true)]
    tls_skip_verify: bool,
    /// The namespace; this server has only the root one. Also from COFFER_NAMESPACE, VAULT_... or BAO_...
    #[arg(long, visible_alias = "ns", global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// Tables for people, JSON or YAML for programs. Also from COFFER_FORMAT, VAULT_FORMAT or BAO_FORMAT.
    #[arg(long, global = true, value_name = "FORMAT")]
    format: Option<out::Format>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Server(crate::serve::ServerArgs),
    /// Show whether the server is initialised and unsealed (exit code 2 when sealed)
    Status,
    /// Initialise, unseal, seal
    #[command(subcommand)]
    Operator(operator::Command),
    /// Log in by a token or an auth method, and keep the token for the next commands
    Login(login::LoginArgs),
    /// Key-value secrets
    #[command(subcommand)]
    Kv(kv::Command),
    /// Policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Leases of issued credentials
    #[command(subcommand)]
    Lease(lease::Command),
    /// What happens at the server, as it happens
    #[command(subcommand)]
    Events(events::Command),
    /// Secrets engines
    #[command(subcommand)]
    Secrets(secrets::Command),
    /// Auth methods
    #[command(subcommand)]
    Auth(auth_mounts::Command),
    /// Accounts at databases
    #[command(subcommand)]
    Database(database::Command),
    /// Rotations of credentials that have readers
    #[command(subcommand)]
    Rotation(database::RotationCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Read any path
    Read(generic::ReadArgs),
    /// Write to any path
    Write(generic::WriteArgs),
    /// List the names under any path
    List(generic::PathArgs),
    /// Delete any path
    Delete(generic::PathArgs),
    /// Show a wrapped reply; it can be had once
    Unwrap(unwrap::UnwrapArgs),
    /// Change some fields of what is at any path
    Patch(generic::WriteArgs),
    /// Print a completion script for a shell
    Completions(complete::CompletionArgs),
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse_from(dashes::vaults(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, but not to the shell.
            let code = u8::from(error.use_stderr());
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE };
        }
    };
    let outcome = match cli.command {
        Command::Server(args) => crate::serve::run(args),
        Command::Completions(args) => complete::run(&args),
        command => client(&cli.global, command),
    };
    outcome.unwrap_or_else(|error| {
        if is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        out::complain(&format!("Error: {}", describe(&error)));
        exit_code(&error)
    })
}

fn client(global: &Global, command: Command) -> Done {
    let out = Out::new(global.format)?;
    // What works on files alone needs neither server nor runtime.
    if let Command::Audit(command) = &command
        && let Some(done) = audit::offline(command, &out)
    {
        return done;
    }
    if let Command::Policy(command) = &command
        && let Some(done) = policy::offline(command, &out)
    {
        return done;
    }
    let session = Session::new(global)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(dispatch(command, &session, &out))
}

async fn dispatch(command: Command, session: &Session, out: &Out) -> Done {
    match command {
        Command::Status => operator::status(session, out).await,
        Command::Operator(command) => operator::run(command, session, out).await,
        Command::Login(args) => login::run(args, session, out).await,
        Command::Kv(command) => kv::run(command, session, out).await,
        Command::Policy(command) => policy::run(command, session, out).await,
        Command::Token(command) => token::run(command, session, out).await,
        Command::Lease(command) => lease::run(command, session, out).await,
        Command::Events(command) => events::run(command, session, out).await,
        Command::Secrets(command) => secrets::run(command, session, out).await,
        Command::Auth(command) => auth_mounts::run(command, session, out).await,
        Command::Audit(command) => audit::run(command, session, out).await,
        Command::Database(command) => database::run(command, session, out).await,
        Command::Rotation(command) => database::run_rotation(command, session, out).await,
        Command::Read(args) => generic::read(args, session, out).await,
        Command::Write(args) => generic::write(args, session, out).await,
        Command::List(args) => generic::list(&args, session, out).await,
        Command::Delete(args) => generic::delete(&args, session, out).await,
        Command::Unwrap(args) => unwrap::run(args, session, out).await,
        Command::Patch(args) => generic::patch(args, session, out).await,
        Command::Server(_) | Command::Completions(_) => anyhow::bail!("not a client command"),
    }
}

/// There is nothing at a path: an answer of the server, and yet no success.
#[derive(Debug, thiserror::Error)]
#[error("no value found at {0}")]
struct NoValue(String);

/// 2 when the server said no or could not be asked, 1 when the mistake is on this side.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let theirs = error.chain().any(|cause| {
        cause.is::<NoValue>()
            || cause
                .downcast_ref::<ClientError>()
                .is_some_and(|error| !matches!(error, ClientError::Config(_) | ClientError::Path { .. }))
    });
    ExitCode::from(if theirs { 2 } else { 1 })
}

/// The whole chain of causes on as few lines as it takes; Vault's multi-line errors are folded.
fn describe(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let folded: Vec<&str> = text.split(['\n', '\t']).map(str::trim).filter(|part| !part.is_empty()).collect();
    folded.join(" ")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_accessor_may_begin_with_a_dash() {
        for line in ["coffer token revoke --accessor -vGh", "coffer audit tail --accessor -n"] {
            Cli::try_parse_from(line.split(' ')).unwrap();
        }
    }

    #[test]
    fn exit_codes() {
        let code = |error: anyhow::Error| format!("{:?}", exit_code(&error));
        let two = format!("{:?}", ExitCode::from(2));
        let denied = ClientError::Status { code: 403, errors: vec!["permission denied".into()] };
        assert_eq!(code(anyhow::Error::from(denied).context("reading a")), two);
        assert_eq!(code(ClientError::Unreachable("x".into()).into()), two);
        assert_eq!(code(NoValue("a".into()).into()), two);
        assert_ne!(code(ClientError::Config("x".into()).into()), two);
        assert_ne!(code(anyhow::anyhow!("x")), two);
    }

    #[test]
    fn multi_line_errors_are_folded() {
        let vaults = "1 error occurred:\n\t* permission denied\n\n".to_owned();
        let error = anyhow::Error::from(ClientError::Status { code: 403, errors: vec![vaults] });
        assert_eq!(describe(&error), "status 403: 1 error occurred: * permission denied");
    }
}
