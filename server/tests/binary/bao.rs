//! The real `bao` command line against Coffer, as a user of OpenBao would go on with it: over TLS 1.3, on a store
//! that outlives the server.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::bed::Bed;
use crate::common::Server;
use crate::openbao;

/// Somebody with `bao` at a shell.
struct Bao<'a> {
    bed: &'a Bed,
    home: tempfile::TempDir,
    address: String,
}

impl<'a> Bao<'a> {
    fn new(bed: &'a Bed, server: &Server) -> Self {
        Self { bed, home: tempfile::tempdir().unwrap(), address: format!("https://{}", server.address) }
    }

    /// Somebody else, who has not logged in.
    fn other(&self) -> Self {
        Self { bed: self.bed, home: tempfile::tempdir().unwrap(), address: self.address.clone() }
    }

    fn run(&self, line: &str, input: &str) -> Output {
        let mut command = Command::new(openbao::bao());
        command.args(words(line)).env_clear().env("HOME", self.home.path());
        command.env("BAO_ADDR", &self.address).env("BAO_CACERT", self.bed.path("ca.crt"));
        // What is refused is refused: no patience with it.
        command.env("BAO_MAX_RETRIES", "0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing may be gone before this is written.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// A command that works; what it says.
    fn ok(&self, line: &str) -> String {
        self.ok_with(line, "")
    }

    fn ok_with(&self, line: &str, input: &str) -> String {
        let output = self.run(line, input);
        assert!(output.status.success(), "bao {line}\n{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command that works, with its answer as JSON.
    fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} -format=json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("bao {line}\n{e}: {text}"))
    }

    /// A command that does not work: its exit code, and why.
    fn fails(&self, line: &str) -> (i32, String) {
        let output = self.run(line, "");
        assert!(!output.status.success(), "bao {line} works:\n{}", said(&output));
        (output.status.code().unwrap(), said(&output))
    }

    /// A command that is refused for want of a permission.
    fn denied(&self, line: &str) {
        let (code, said) = self.fails(line);
        assert!(code == 2 && said.contains("permission denied"), "bao {line}\n{said}");
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A command line's words; quotes hold words together. Flags must come before arguments, so `-format` is put first
/// after the verbs.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    if words.last().is_some_and(|word| word.starts_with("-format=")) {
        let format = words.pop().unwrap();
        let verb = |word: &String| {
            word.starts_with(char::is_alphabetic) && word.chars().all(|c| c == '-' || c.is_ascii_lowercase())
        };
        let first = words.iter().position(|word| !verb(word));
        words.insert(first.unwrap_or(words.len()), format);
    }
    words
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("expected text: {value}")).to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap_or_else(|| panic!("expected a list: {value}")).iter().map(text).collect()
}

#[test]
fn a_user_of_bao_lives_a_whole_life_with_coffer() {
    let bed = Bed::new();
    std::fs::create_dir(bed.path("devices")).unwrap();
    bed.add(&format!("audit_directories = [\"{}\"]\n", bed.path("devices").display()));
    let mut server = Server::with_config(&bed.path("coffer.hcl"));
    let bao = Bao::new(&bed, &server);
    let (keys, root) = beginning(&bao);
    secrets(&bao);
    old_secrets(&bao);
    policies_and_tokens(&bao);
    programs(&bao);
    people(&bao);
    wrapping(&bao);
    mounts(&bao);
    audit(&bao);
    let keys = new_keys(&bao, &keys);
    another_root(&bao, &keys);

    bao.ok("operator seal");
    assert_eq!(bao.run("status", "").status.code(), Some(2), "sealed");
    let (code, why) = bao.fails("kv get secret/app");
    assert!(code == 2 && why.contains("Vault is sealed"), "{why}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().0, Some(0));

    let server = Server::with_config(&bed.path("coffer.hcl"));
    let again = Bao::new(&bed, &server);
    unseal(&again, &keys);
    again.ok_with("login -", &root);
    everything_is_there(&again);
}

/// Initialised with five keys of which three are needed, unsealed, logged in to.
fn beginning(bao: &Bao) -> (Vec<String>, String) {
    assert_eq!(bao.run("status", "").status.code(), Some(2), "nothing is there yet");
    let (_, why) = bao.fails("operator init -key-shares=3 -key-threshold=5");
    assert!(why.contains("threshold"), "{why}");
    let made = bao.json("operator init -key-shares=5 -key-threshold=3");
    let (keys, root) = (texts(&made["unseal_keys_b64"]), text(&made["root_token"]));
    assert_eq!((keys.len(), texts(&made["unseal_keys_hex"]).len()), (5, 5));
    let (_, why) = bao.fails("operator init");
    assert!(why.contains("Vault is already initialized"), "{why}");
    unseal(bao, &keys);
    assert!(bao.ok("status").contains("Sealed          false"));
    let (_, why) = bao.fails("login -no-print s.nosuchtoken");
    assert!(why.contains("permission denied"), "{why}");
    bao.ok_with("login -", &root);
    assert_eq!(text(&bao.json("token lookup")["data"]["display_name"]), "root");
    (keys, root)
}

fn unseal(bao: &Bao, keys: &[String]) {
    let needed = bao.run("status -format=json", "");
    let needed = serde_json::from_slice::<Value>(&needed.stdout).unwrap()["t"].as_u64().unwrap();
    for (i, key) in keys.iter().take(usize::try_from(needed).unwrap()).enumerate() {
        let status: Value =
            serde_json::from_str(&bao.ok(&format!("operator unseal -format=json {key}"))).unwrap();
        assert_eq!(status["sealed"], i as u64 + 1 < needed, "{status}");
    }
}

/// Every verb of `kv` on a version 2 mount.
fn secrets(bao: &Bao) {
    bao.ok("secrets enable -path=secret -version=2 kv");
    bao.ok("kv put secret/app user=app password=one");
    bao.ok("kv put -cas=1 -mount=secret app user=app password=two");
    let (code, why) = bao.fails("kv put -cas=1 secret/app user=app");
    assert!(code == 2 && why.contains("check-and-set"), "{why}");
    assert_eq!(bao.ok("kv get -field=password secret/app"), "two");
    assert_eq!(bao.ok("kv get -field=password -version=1 secret/app"), "one");
    bao.ok_with("kv put secret/stdin value=-", "from\nstandard input");
    assert_eq!(bao.ok("kv get -field=value secret/stdin"), "from\nstandard input");
    bao.ok("kv patch secret/app password=three");
    bao.ok("kv patch -method=rw secret/app more=yes");
    assert_eq!(bao.ok("kv get -field=user secret/app"), "app");
    bao.ok("kv rollback -version=1 secret/app");
    assert_eq!(bao.ok("kv get -field=password secret/app"), "one");
    bao.ok("kv delete secret/app");
    let (code, why) = bao.fails("kv get -field=password secret/app");
    assert_eq!(code, 2, "{why}");
    bao.ok("kv undelete -versions=5 secret/app");
    assert_eq!(bao.ok("kv get -field=password secret/app"), "one");
    bao.ok("kv delete -versions=2,3 secret/app");
    bao.ok("kv destroy -versions=2 secret/app");
    let versions = bao.json("kv metadata get secret/app")["data"]["versions"].clone();
    assert_eq!(versions["2"]["destroyed"], true);
    assert!(!text(&versions["3"]["deletion_time"]).is_empty() && versions["3"]["destroyed"] == false);
    bao.ok("kv metadata put -max-versions=7 -custom-metadata=owner=shop -delete-version-after=1h secret/app");
    bao.ok("kv metadata patch -custom-metadata=team=red secret/app");
    let metadata = bao.json("kv metadata get secret/app")["data"].clone();
    assert_eq!(metadata["custom_metadata"], serde_json::json!({"owner": "shop", "team": "red"}));
    assert_eq!((&metadata["max_versions"], &metadata["delete_version_after"]), (&7.into(), &"1h0m0s".into()));
    bao.ok("kv metadata put -delete-version-after=0s secret/app");
    bao.ok("kv put secret/deep/er/one a=1");
    bao.ok("kv put secret/deep/two a=1");
    assert_eq!(texts(&bao.json("kv list secret/")), ["app", "deep/", "stdin"]);
    let mut all = texts(&bao.json("kv scan secret/"));
    all.sort();
    assert_eq!(all, ["app", "deep/er/one", "deep/two", "stdin"]);
    assert_eq!(texts(&bao.json("kv list secret/deep")), ["er/", "two"]);
    bao.ok("kv metadata delete secret/deep/two");
    let (code, _) = bao.fails("kv get secret/deep/two");
    assert_eq!(code, 2);
    let (code, why) = bao.fails("kv get secret/nothing");
    assert!(code == 2 && why.contains("No value found at secret/data/nothing"), "{why}");
}

/// The same verbs on a version 1 mount, and the general ones.
fn old_secrets(bao: &Bao) {
    bao.ok("secrets enable -path=old -version=1 kv");
    bao.ok("kv put old/app user=app password=one");
    assert_eq!(bao.ok("kv get -field=password old/app"), "one");
    assert_eq!(texts(&bao.json("kv list old/")), ["app"]);
    bao.ok("write old/other a=b c=d");
    assert_eq!(bao.json("read old/other")["data"], serde_json::json!({"a": "b", "c": "d"}));
    assert_eq!(texts(&bao.json("list old/")), ["app", "other"]);
    bao.ok("delete old/other");
    let (code, why) = bao.fails("read old/other");
    assert!(code == 2 && why.contains("No value found at old/other"), "{why}");
    bao.ok("kv delete old/none");
}

const READER: &str = r#"path "secret/data/app" { capabilities = ["read"] }
path "secret/metadata/" { capabilities = ["list"] }
"#;

fn policies_and_tokens(bao: &Bao) {
    bao.ok_with("policy write reader -", READER);
    assert_eq!(bao.ok("policy read reader").trim(), READER.trim());
    assert_eq!(texts(&bao.json("policy list")), ["default", "reader", "root"]);
    bao.ok_with("policy write gone -", READER);
    bao.ok("policy delete gone");
    let (code, _) = bao.fails("policy read gone");
    assert_eq!(code, 2);

    let made = bao.json("token create -policy=reader -ttl=1h -display-name=somebody -metadata=who=me");
    let (token, accessor) = (text(&made["auth"]["client_token"]), text(&made["auth"]["accessor"]));
    let somebody = bao.other();
    somebody.ok_with("login -", &token);
    assert_eq!(somebody.ok("kv get -field=password secret/app"), "one");
    somebody.denied("kv put secret/app password=mine");
    somebody.denied("kv get secret/stdin");
    assert_eq!(texts(&somebody.json("kv list secret/")), ["app", "deep/", "stdin"]);
    assert_eq!(somebody.ok("token capabilities secret/data/app").trim(), "read");
    assert_eq!(bao.ok(&format!("token capabilities {token} secret/data/none")).trim(), "deny");
    let found = bao.json(&format!("token lookup -accessor {accessor}"));
    assert_eq!((&found["data"]["id"], &found["data"]["meta"]["who"]), (&"".into(), &"me".into()));
    let renewed = somebody.json("token renew -increment=30m");
    assert!(renewed["auth"]["lease_duration"].as_u64().is_some_and(|left| left <= 1800), "{renewed}");

    bao.ok("write auth/token/roles/job allowed_policies=reader period=1h orphan=true");
    let job = bao.json("token create -role=job");
    assert_eq!(job["auth"]["orphan"], true);
    let periodic = bao.json(&format!("token lookup {}", text(&job["auth"]["client_token"])));
    assert_eq!(periodic["data"]["period"], 3600);
    let once = text(&bao.json("token create -policy=reader -use-limit=1")["auth"]["client_token"]);
    bao.ok(&format!("token lookup {once}"));
    let someone = bao.other();
    let output = someone.run(&format!("login -no-store {once}"), "");
    assert!(output.status.success(), "{}", said(&output));
    let (_, why) = someone.fails(&format!("login -no-store {once}"));
    assert!(why.contains("permission denied"), "{why}");

    bao.ok(&format!("token revoke -accessor {accessor}"));
    somebody.denied("kv get secret/app");
    assert_eq!(bao.json("token create -orphan -policy=reader")["auth"]["orphan"], true);
}

/// AppRole: a role id, and a secret id that only the program itself unwraps.
fn programs(bao: &Bao) {
    bao.ok("auth enable approle");
    bao.ok("write auth/approle/role/web token_policies=reader token_ttl=20m token_max_ttl=1h secret_id_num_uses=1");
    let role = text(&bao.json("read auth/approle/role/web/role-id")["data"]["role_id"]);
    let wrapped = bao.json("write -wrap-ttl=60s -f auth/approle/role/web/secret-id");
    let wrapping = text(&wrapped["wrap_info"]["token"]);
    let program = bao.other();
    let secret = program.json(&format!("unwrap {wrapping}"));
    let secret = text(&secret["data"]["secret_id"]);
    let (_, why) = program.fails(&format!("unwrap {wrapping}"));
    assert!(why.contains("wrapping token is not valid or does not exist"), "{why}");
    let login = program.json(&format!("write auth/approle/login role_id={role} secret_id={secret}"));
    program.ok_with("login -", &text(&login["auth"]["client_token"]));
    assert_eq!(program.ok("kv get -field=password secret/app"), "one");
    let (_, why) = program.fails(&format!("write auth/approle/login role_id={role} secret_id={secret}"));
    assert!(why.contains("invalid role or secret ID"), "{why}");
}

fn people(bao: &Bao) {
    bao.ok("auth enable userpass");
    bao.ok("write auth/userpass/users/anna password=s3same token_policies=reader");
    let anna = bao.other();
    anna.ok("login -method=userpass username=anna password=s3same");
    assert_eq!(anna.ok("kv get -field=password secret/app"), "one");
    assert_eq!(text(&anna.json("token lookup")["data"]["display_name"]), "userpass-anna");
    let (_, why) = anna.fails("login -method=userpass username=anna password=wrong");
    assert!(why.contains("invalid username or password"), "{why}");
    assert_eq!(texts(&bao.json("list auth/userpass/users")), ["anna"]);
    anna.ok("token revoke -self");
    anna.denied("kv get secret/app");
}

fn wrapping(bao: &Bao) {
    let wrapped = bao.json("kv get -wrap-ttl=5m secret/app");
    let token = text(&wrapped["wrap_info"]["token"]);
    let looked = bao.json(&format!("write sys/wrapping/lookup token={token}"));
    assert_eq!(looked["data"]["creation_path"], "secret/data/app");
    let unwrapped = bao.other().json(&format!("unwrap {token}"));
    assert_eq!(unwrapped["data"]["data"]["password"], "one");
    bao.ok("write cubbyhole/mine a=b");
    assert_eq!(bao.json("read cubbyhole/mine")["data"]["a"], "b");
    bao.ok("delete cubbyhole/mine");
}

fn mounts(bao: &Bao) {
    bao.ok("secrets enable -path=team -description=ours -default-lease-ttl=1h kv-v2");
    bao.ok("kv put team/x a=b");
    bao.ok("secrets tune -max-lease-ttl=2h -description=theirs team/");
    let team = bao.json("secrets list")["team/"].clone();
    assert_eq!((&team["description"], &team["config"]["max_lease_ttl"]), (&"theirs".into(), &7200.into()));
    bao.ok("secrets disable team/");
    assert!(bao.json("secrets list").get("team/").is_none());
    bao.ok("auth enable -path=staff userpass");
    bao.ok("auth disable staff/");
    assert!(bao.json("auth list").get("staff/").is_none());
}

fn audit(bao: &Bao) {
    let log = bao.bed.path("devices/more.log");
    bao.ok(&format!("audit enable -path=more file file_path={}", log.display()));
    assert_eq!(bao.json("audit list")["more/"]["type"], "file");
    bao.ok("kv get secret/app");
    let hash = text(&bao.json("write sys/audit-hash/more input=one")["data"]["hash"]);
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(lines.contains("secret/data/app") && !lines.contains("\"one\""), "{lines}");
    assert!(lines.contains(&hash), "the value stands there as its HMAC");
    bao.ok("audit disable more/");
}

/// New shares for an old vault: three of which two are needed.
fn new_keys(bao: &Bao, keys: &[String]) -> Vec<String> {
    let begun = bao.json("operator rotate-keys -init -key-shares=3 -key-threshold=2");
    let nonce = text(&begun["nonce"]);
    bao.ok(&format!("operator rotate-keys -nonce={nonce} {}", keys[4]));
    bao.ok(&format!("operator rotate-keys -nonce={nonce} {}", keys[1]));
    let made = bao.json(&format!("operator rotate-keys -nonce={nonce} {}", keys[0]));
    let new = texts(&made["keys_base64"]);
    assert_eq!(new.len(), 3);
    bao.ok("operator rotate");
    assert!(bao.json("operator key-status")["term"].as_u64().is_some_and(|term| term > 1));
    new
}

fn another_root(bao: &Bao, keys: &[String]) {
    let begun = bao.json("operator generate-root -init");
    let (nonce, otp) = (text(&begun["nonce"]), text(&begun["otp"]));
    bao.ok(&format!("operator generate-root -nonce={nonce} {}", keys[2]));
    let made = bao.json(&format!("operator generate-root -nonce={nonce} {}", keys[0]));
    let encoded = text(&made["encoded_token"]);
    let token = bao.ok(&format!("operator generate-root -decode={encoded} -otp={otp}"));
    let other = bao.other();
    other.ok_with("login -", token.trim());
    assert_eq!(other.json("token lookup")["data"]["policies"], serde_json::json!(["root"]));
    other.ok("token revoke -self");
}

/// After the restart.
fn everything_is_there(bao: &Bao) {
    assert_eq!(bao.ok("kv get -field=password secret/app"), "one");
    assert_eq!(bao.json("kv metadata get secret/app")["data"]["custom_metadata"]["team"], "red");
    assert_eq!(texts(&bao.json("kv list secret/")), ["app", "deep/", "stdin"]);
    assert_eq!(bao.ok("kv get -field=password old/app"), "one");
    assert_eq!(bao.ok("policy read reader").trim(), READER.trim());
    assert_eq!(texts(&bao.json("list auth/approle/role")), ["web"]);
    assert_eq!(texts(&bao.json("list auth/userpass/users")), ["anna"]);
    assert_eq!(texts(&bao.json("list auth/token/roles")), ["job"]);
    let anna = bao.other();
    anna.ok("login -method=userpass username=anna password=s3same");
    assert_eq!(anna.ok("kv get -field=password secret/app"), "one");
    anna.denied("kv put secret/app password=mine");
}
