//! The limits of docs/reference/limits.md, each at its number and one beyond. Only tests.
//!
//! The page is read: a row that says "shown" and has no case here fails, and so does a case whose number is another.

mod cases;

use std::collections::BTreeMap;

use axum::body::Body;
use cases::{Case, cases};
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::Limits;
use crate::tests::{Bed, bed_with};

/// A request: method, URI below `/v1/`, body.
type Ask = (&'static str, String, Vec<u8>);

/// The rows of the page: what, the first number in the limit, and whether it is shown.
fn rows() -> BTreeMap<String, (String, bool)> {
    let page = coffer_fuzz::workspace().join("docs/reference/limits.md");
    let page = std::fs::read_to_string(page).unwrap();
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what ")).map(cells);
    let mut found = BTreeMap::new();
    for row in rows {
        assert_eq!(row.len(), 5, "{row:?}");
        assert!(row.iter().take(3).all(|cell| !cell.is_empty()), "{row:?}");
        let number: String =
            row[1].chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
        assert!(
            found.insert(row[0].clone(), (number, row[4] == "yes")).is_none(),
            "{} is there twice",
            row[0]
        );
    }
    found
}

async fn send(bed: &Bed, ask: Ask, token: Option<&str>) -> (u16, String) {
    let (method, uri, body) = ask;
    let request = Request::builder().method(method).uri(format!("/v1/{uri}"));
    let request =
        request.header("x-vault-token", token.unwrap_or(&bed.token)).body(Body::from(body)).unwrap();
    let response = bed.send(request).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (status, answer["errors"][0].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_is_at_a_limit_is_taken_and_what_is_beyond_it_is_told_which() {
    let rows = rows();
    let bed = bed_with(Limits::default()).await;
    for (path, body) in [
        ("/v1/sys/auth/approle", serde_json::json!({"type": "approle"})),
        ("/v1/sys/auth/userpass", serde_json::json!({"type": "userpass"})),
        ("/v1/secret/data/there", serde_json::json!({"data": {}})),
    ] {
        bed.ask("POST", path, body).await;
    }
    let (mut seen, mut wrong) = (Vec::new(), Vec::new());
    for Case { what, number, status, says, ask, token } in cases() {
        let (limit, shown) = rows.get(what).unwrap_or_else(|| panic!("the page has no row {what:?}"));
        assert!(*shown, "{what} is shown, and the page does not say so");
        assert_eq!(*limit, number.to_string(), "the page's number of {what}");
        let (within, error) = send(&bed, ask(number), token.map(|token| token(number)).as_deref()).await;
        if !(within < 300 || within == 404 || (token.is_some() && within == 403)) {
            wrong.push(format!("{what} at {number}: {within} {error}"));
        }
        let (beyond, error) =
            send(&bed, ask(number + 1), token.map(|token| token(number + 1)).as_deref()).await;
        if beyond != status || !error.contains(says) {
            wrong.push(format!("{what} beyond {number}: {beyond} {error:?}, wanted {status} and {says:?}"));
        }
        seen.push(what);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let missing: Vec<_> = rows.iter().filter(|(what, row)| row.1 && !seen.contains(&what.as_str())).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
