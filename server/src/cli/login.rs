//! `login`: by a token or by an auth method. The token is kept in a file that only its owner can read.
//!
//! Passwords, secret ids and tokens of others are never taken from the command line, which everybody can read.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use coffer_client::Call;
use coffer_client::wire::{Auth, Disclose, Envelope, TokenLookup};
use serde_json::{Map, Value};

use super::generic::clean;
use super::out::{Out, complain, duration};
use super::session::{Session, token_path};
use super::{Done, input};

/// Where Kubernetes puts a pod's own token.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// What nobody else may see.
const SECRETS: &[&str] = &["jwt", "password", "secret_id", "token"];

/// Options of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// With a token: `-`, or nothing; it is read from standard input. With another method: its fields, as
    /// username=bob, role_id=..., role=app; secrets as password=-, secret_id=@FILE or jwt=@FILE.
    data: Vec<String>,
    /// token, userpass, approle, kubernetes, jwt, or another method whose login takes its fields as they are.
    #[arg(long, default_value = "token")]
    method: String,
    /// Where the method is mounted; its name unless given.
    #[arg(long)]
    path: Option<String>,
    /// Log in, or check the token, but do not keep it.
    #[arg(long)]
    no_store: bool,
    /// Print the token and nothing else, and do not keep it.
    #[arg(long)]
    token_only: bool,
}

/// Logs in and keeps the token.
pub(crate) async fn run(args: LoginArgs, session: &Session, out: &Out) -> Done {
    if args.method == "token" {
        by_token(&args, session, out).await
    } else {
        by_method(&args, session, out).await
    }
}

async fn by_token(args: &LoginArgs, session: &Session, out: &Out) -> Done {
    match args.data.as_slice() {
        [] => {}
        [dash] if dash == "-" => {}
        _ => bail!("a token is never an argument: it is read from standard input"),
    }
    let token = input::secret("Token (will be hidden)")?;
    let client = session.with_token(&token)?;
    let found = client.lookup_self().await.context("checking the token")?;
    keep(args, &token)?;
    if args.token_only {
        out.raw(token.expose())?;
    } else if out.is_json() {
        out.json(&found)?;
    } else {
        greet(args, out)?;
        out.pairs(&rows(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn by_method(args: &LoginArgs, session: &Session, out: &Out) -> Done {
    let mount = args.path.as_deref().map_or(args.method.as_str(), clean);
    let mount = mount.strip_prefix("auth/").unwrap_or(mount);
    let (path, body) = request(&args.method, mount, &args.data)?;
    let body = Disclose::new(body);
    let reply: Envelope<Value> = session
        .anonymous()
        .exchange(Call::new("POST", &path), Some(&body))
        .await
        .with_context(|| format!("logging in at auth/{mount}/"))?;
    for warning in reply.warnings.iter().flatten() {
        complain(&format!("Warning: {warning}"));
    }
    let auth = reply.auth.as_ref().context("the reply has no token")?;
    keep(args, &auth.client_token)?;
    if args.token_only {
        out.raw(auth.client_token.expose())?;
    } else if out.is_json() {
        out.json(&reply)?;
    } else {
        greet(args, out)?;
        out.pairs(&granted(auth))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a method logs in, and with what.
fn request(method: &str, mount: &str, data: &[String]) -> anyhow::Result<(String, Map<String, Value>)> {
    for pair in data {
        let (key, value) = pair.split_once('=').unwrap_or((pair, "-"));
        if SECRETS.contains(&key) && value != "-" && !value.starts_with('@') {
            bail!("{key} is never an argument: give {key}=- and write it to standard input, or {key}=@FILE");
        }
    }
    let mut body = input::pairs(data)?;
    for key in SECRETS {
        // A file or a line of input ends in a line end that is no part of the secret.
        if let Some(Value::String(text)) = body.get_mut(*key) {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
        }
    }
    let mut path = format!("auth/{mount}/login");
    match method {
        "userpass" => {
            let name = body.remove("username");
            let name = name.as_ref().and_then(Value::as_str).context("userpass: give username=NAME")?;
            path = format!("{path}/{name}");
            if !body.contains_key("password") {
                let password = input::secret("Password (will be hidden)")?;
                body.insert("password".into(), password.expose().as_str().into());
            }
        }
        "approle" if !body.contains_key("role_id") => {
            bail!("approle: give role_id=ID, and secret_id=- if it has one")
        }
        "kubernetes" if !body.contains_key("role") => bail!("kubernetes: give role=NAME"),
        "kubernetes" if !body.contains_key("jwt") => {
            let jwt = std::fs::read_to_string(POD_TOKEN);
            let jwt = jwt.with_context(|| format!("kubernetes: give jwt=@FILE; {POD_TOKEN}"))?;
            body.insert("jwt".into(), jwt.trim().into());
        }
        "jwt" if !body.contains_key("jwt") => bail!("jwt: give jwt=- or jwt=@FILE"),
        _ => {}
    }
    Ok((path, body))
}

fn keep(args: &LoginArgs, token: &Disclose) -> anyhow::Result<()> {
    if args.no_store || args.token_only {
        return Ok(());
    }
    let path = token_path()?;
    store(&path, token).with_context(|| format!("keeping the token in {}", path.display()))
}

fn greet(args: &LoginArgs, out: &Out) -> anyhow::Result<()> {
    out.line(match (args.no_store, args.method.as_str()) {
        (true, "token") => "The token is good.",
        (true, _) => "You are logged in; the token is not kept.",
        (false, _) => "You are logged in; the token is kept.",
    })?;
    out.line("")
}

fn rows(found: &TokenLookup) -> Vec<(String, String)> {
    let life = if found.expire_time.is_none() { "never ends".to_owned() } else { duration(found.ttl) };
    vec![
        ("token_accessor".to_owned(), found.accessor.clone()),
        ("token_display_name".to_owned(), found.display_name.clone()),
        ("token_duration".to_owned(), life),
        ("token_renewable".to_owned(), found.renewable.to_string()),
        ("token_policies".to_owned(), format!("[{}]", found.policies.join(" "))),
    ]
}

/// What was granted; the token itself is in its file.
fn granted(auth: &Auth) -> Vec<(String, String)> {
    let mut rows = vec![
        ("token_accessor".to_owned(), auth.accessor.clone()),
        ("token_duration".to_owned(), duration(auth.lease_duration)),
        ("token_renewable".to_owned(), auth.renewable.to_string()),
        ("token_policies".to_owned(), format!("[{}]", auth.policies.join(" "))),
    ];
    for (key, value) in auth.metadata.iter().flatten() {
        rows.push((format!("token_meta_{key}"), value.clone()));
    }
    rows
}

/// Written beside and renamed, so that no moment shows half a token or one that others may read.
fn store(path: &Path, token: &Disclose) -> std::io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(token.expose().as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _nothing_to_remove = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".coffer-token");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        store(&path, &Disclose::from("s.new")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "s.new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn secrets_are_files_and_never_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "hunter2\n").unwrap();
        let of = |method: &str, data: &[&str]| {
            request(method, "m", &data.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>())
        };
        let at = file.display();
        let (path, body) = of("userpass", &["username=bob", &format!("password=@{at}")]).unwrap();
        assert_eq!((path.as_str(), &body["password"]), ("auth/m/login/bob", &"hunter2".into()));
        let (path, body) = of("approle", &["role_id=r", &format!("secret_id=@{at}")]).unwrap();
        assert_eq!((path.as_str(), body.len(), &body["secret_id"]), ("auth/m/login", 2, &"hunter2".into()));
        let (path, body) = of("other", &["role=r", "code=7"]).unwrap();
        assert_eq!((path.as_str(), &body["code"]), ("auth/m/login", &"7".into()));
        for (method, data) in [
            ("userpass", &["username=bob", "password=hunter2"][..]),
            ("approle", &["role_id=r", "secret_id=hunter2"]),
            ("jwt", &["role=r", "jwt=hunter2"]),
            ("approle", &[]),
            ("jwt", &["role=r"]),
            ("kubernetes", &[&format!("jwt=@{at}")]),
        ] {
            let why = of(method, data).unwrap_err().to_string();
            assert!(!why.contains("hunter2"), "{method}: {why}");
        }
    }
}
