//! A store that somebody or something has damaged: what is hit is refused with a clear error, the rest is served, and a
//! store that cannot be read at all is never taken for a new one.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::bed::Bed;
use crate::common::Server;
use crate::ready::Ready;

/// As the embedded store names it.
const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");

/// A row: key and value.
type Row = (Vec<u8>, Vec<u8>);

/// A server that has ended, with three more secrets of 3,000 bytes each.
fn ended() -> Ready {
    let mut ready = Ready::new();
    for name in ["a", "b", "c"] {
        let value = name.repeat(3_000);
        ready.shell.ok_with(&["kv", "put", &format!("secret/{name}"), "k=-"], &value);
    }
    ready.server.signal(Signal::SIGTERM);
    assert_eq!(ready.server.end().0, Some(0));
    ready
}

fn file(bed: &Bed) -> PathBuf {
    bed.path("data/coffer.redb")
}

/// The rows that hold the three secrets, which are the largest.
fn large(database: &Database) -> Vec<Row> {
    let txn = database.begin_read().unwrap();
    let table = txn.open_table(ROWS).unwrap();
    let rows = table.iter().unwrap().map(|row| row.unwrap());
    let large = rows.filter(|(_, value)| value.value().len() > 3_000);
    large.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
}

fn put(database: &Database, rows: &[(&[u8], &[u8])]) {
    let txn = database.begin_write().unwrap();
    let mut table = txn.open_table(ROWS).unwrap();
    for (key, value) in rows {
        table.insert(*key, *value).unwrap();
    }
    drop(table);
    txn.commit().unwrap();
}

fn start(ready: &mut Ready) {
    let server = Server::with_config(&ready.bed.path("coffer.hcl"));
    ready.again(server);
}

/// Which of the three secrets can be read. The others are refused with a sentence that has these words.
fn readable(ready: &Ready, words: &str) -> usize {
    let mut count = 0;
    for name in ["a", "b", "c"] {
        let answer = ready.send(&ready.request("GET", format!("secret/data/{name}")).end(b""));
        if answer.status == 200 {
            assert!(answer.body.contains(&name.repeat(3_000)), "{name} is another's");
            count += 1;
        } else {
            assert!(answer.status == 500 && answer.error().contains(words), "{answer:?}");
        }
    }
    count
}

const TAMPERED: &str = "does not authenticate";

#[test]
fn a_corrupted_row_is_refused_and_the_others_are_served() {
    let mut ready = ended();
    let database = Database::open(file(&ready.bed)).unwrap();
    let rows = large(&database);
    assert_eq!(rows.len(), 3);
    let (key, mut value) = rows[1].clone();
    let middle = value.len() / 2;
    value[middle] ^= 1;
    put(&database, &[(&key, &value)]);
    drop(database);
    start(&mut ready);
    assert_eq!(readable(&ready, TAMPERED), 2);
    // It can be written anew.
    for name in ["a", "b", "c"] {
        ready.shell.ok_with(&["kv", "put", &format!("secret/{name}"), "k=-"], &name.repeat(3_000));
    }
    assert_eq!(readable(&ready, TAMPERED), 3);
    ready.unharmed();
}

#[test]
fn a_row_that_is_too_short_is_refused() {
    let mut ready = ended();
    let database = Database::open(file(&ready.bed)).unwrap();
    let rows = large(&database);
    put(&database, &[(&rows[0].0, b""), (&rows[1].0, &rows[1].1[..10]), (&rows[2].0, &[0xff; 64])]);
    drop(database);
    start(&mut ready);
    assert_eq!(readable(&ready, ""), 0);
    ready.unharmed();
}

#[test]
fn swapped_rows_are_refused_both() {
    let mut ready = ended();
    let database = Database::open(file(&ready.bed)).unwrap();
    let rows = large(&database);
    put(&database, &[(&rows[0].0, &rows[1].1), (&rows[1].0, &rows[0].1)]);
    drop(database);
    start(&mut ready);
    assert_eq!(readable(&ready, TAMPERED), 1);
    ready.unharmed();
}

/// What a server says that cannot start with this store, once.
fn refusal(bed: &Bed) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .args(["server", "--config"])
        .arg(bed.path("coffer.hcl"))
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(1) && !said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_store_that_was_cut_short_or_overwritten_is_refused_and_left_alone() {
    let ready = ended();
    let path = file(&ready.bed);
    let whole = std::fs::read(&path).unwrap();
    let damages: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("a few bytes", whole[..100].to_vec()),
        ("the header only", whole[..4096].to_vec()),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("all but a page", whole[..whole.len() - 4096].to_vec()),
        ("zeros", vec![0; whole.len()]),
    ];
    for (what, bytes) in damages {
        std::fs::write(&path, &bytes).unwrap();
        let said = refusal(&ready.bed);
        let named = said.contains(&ready.bed.path("data").display().to_string());
        assert!(named && said.contains("corrupt"), "{what}: {said}");
        assert_eq!(std::fs::read(&path).unwrap().len(), bytes.len(), "{what}: the file was changed");
    }
    let garbage = OpenOptions::new().write(true).open(&path).unwrap();
    garbage.write_all_at(b"this is not a database", 0).unwrap();
    refusal(&ready.bed);
    // The whole file again, from a copy: nothing else was spoiled.
    std::fs::write(&path, &whole).unwrap();
    let mut ready = ready;
    start(&mut ready);
    assert_eq!(readable(&ready, ""), 3);
    ready.unharmed();
}
