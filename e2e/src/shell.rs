//! Runs programs and turns their failure into a sentence. Never a shell, never a secret in an
//! argument: what is secret goes in on stdin.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Whether it ended with code 0.
    pub ok: bool,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs a program to its end and hands back what it said, however it ended.
pub async fn try_run(command: &mut Command, input: Option<&[u8]>) -> Result<Output> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends without reading its input says why itself.
        let _ = stdin.write_all(input).await;
    }
    let output = child.wait_with_output().await.with_context(|| format!("{name} did not run"))?;
    Ok(Output {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program; its stdout, or an error with the command and the end of what it complained.
pub async fn run(command: &mut Command) -> Result<String> {
    checked(command, None).await
}

/// As [`run`], with `input` on its stdin.
pub async fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    checked(command, Some(input)).await
}

async fn checked(command: &mut Command, input: Option<&[u8]>) -> Result<String> {
    let line = describe(command);
    let output = try_run(command, input).await?;
    if !output.ok {
        let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
        let tail: Vec<&str> = said.trim().lines().rev().take(15).collect();
        bail!("`{line}` failed:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(output.stdout)
}

fn describe(command: &Command) -> String {
    let std = command.as_std();
    let program = std::path::Path::new(std.get_program()).file_name().unwrap_or(std.get_program());
    std::iter::once(program).chain(std.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
