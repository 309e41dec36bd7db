//! Numbers that no 64 bits hold: what a client stores is what comes back, digit by digit, on every way a value takes.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;

use crate::Limits;
use crate::tests::{Bed, bed_with};

/// Each would be changed by a reader that knows integers of 64 bits and doubles only.
const NUMBERS: &str = r#"{"big":123456789012345678901234567890,"list":[18446744073709551616,1e3,-0],"money":1.10,"pi":3.14159265358979323846,"small":1E-400}"#;

/// Status and body, as text: nothing between the server and the assertion reads numbers.
async fn ask(bed: &Bed, method: &str, path: &str, body: &str, wrap: bool) -> (u16, String) {
    let mut request =
        Request::builder().method(method).uri(format!("/v1/{path}")).header("x-vault-token", &bed.token);
    if method == "PATCH" {
        request = request.header("content-type", "application/merge-patch+json");
    }
    if wrap {
        request = request.header("x-vault-wrap-ttl", "60");
    }
    let response = bed.send(request.body(Body::from(body.to_owned())).unwrap()).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn done(bed: &Bed, method: &str, path: &str, body: &str) -> String {
    let (status, answer) = ask(bed, method, path, body, false).await;
    assert!(status < 300, "{method} {path}: {status} {answer}");
    answer
}

async fn unwrapped(bed: &Bed, method: &str, path: &str, body: &str) -> String {
    let (status, answer) = ask(bed, method, path, body, true).await;
    assert_eq!(status, 200, "{answer}");
    let token = answer.split(r#""token":""#).nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    done(bed, "POST", "sys/wrapping/unwrap", &format!(r#"{{"token":"{token}"}}"#)).await
}

#[tokio::test]
async fn key_value_data_comes_back_with_its_numbers_as_they_were_written() {
    let bed = bed_with(Limits::default()).await;
    done(&bed, "POST", "secret/data/n", &format!(r#"{{"options":{{"cas":0}},"data":{NUMBERS}}}"#)).await;
    let data = format!(r#""data":{{"data":{NUMBERS},"metadata""#);
    for _ in 0..2 {
        let read = done(&bed, "GET", "secret/data/n", "").await;
        assert!(read.contains(&data), "from the store and from memory: {read}");
    }
    // What a patch does not name stays, also what is an ordinary number to it.
    done(&bed, "PATCH", "secret/data/n", r#"{"data":{"big":null,"more":{"n":99999999999999999999.50}}}"#)
        .await;
    done(&bed, "PATCH", "secret/data/n", r#"{"data":{"plain":1}}"#).await;
    let read = done(&bed, "GET", "secret/data/n", "").await;
    let wanted = r#"{"list":[18446744073709551616,1e3,-0],"money":1.10,"more":{"n":99999999999999999999.50},"pi":3.14159265358979323846,"plain":1,"small":1E-400}"#;
    assert!(read.contains(&format!(r#""data":{wanted},"#)), "{read}");
    let read = done(&bed, "GET", "secret/data/n?version=1", "").await;
    assert!(read.contains(&data), "{read}");
    let keys = done(&bed, "GET", "secret/subkeys/n", "").await;
    assert!(
        keys.contains(
            r#""subkeys":{"list":null,"money":null,"more":{"n":null},"pi":null,"plain":null,"small":null}"#
        ),
        "{keys}"
    );

    done(&bed, "POST", "sys/mounts/kv1", r#"{"type":"kv","options":{"version":"1"}}"#).await;
    done(&bed, "POST", "kv1/n", NUMBERS).await;
    let read = done(&bed, "GET", "kv1/n", "").await;
    assert!(
        read.contains(&format!(r#""lease_duration":2764800,"data":{NUMBERS},"wrap_info":null"#)),
        "{read}"
    );
}

#[tokio::test]
async fn cubbyholes_and_wrapped_replies_keep_numbers_too() {
    let bed = bed_with(Limits::default()).await;
    done(&bed, "POST", "cubbyhole/n", NUMBERS).await;
    let read = done(&bed, "GET", "cubbyhole/n", "").await;
    assert!(read.contains(&format!(r#""data":{NUMBERS},"#)), "{read}");
    let wrapped = unwrapped(&bed, "POST", "sys/wrapping/wrap", NUMBERS).await;
    assert!(wrapped.contains(&format!(r#""data":{NUMBERS},"#)), "{wrapped}");
    done(&bed, "POST", "secret/data/n", &format!(r#"{{"data":{NUMBERS}}}"#)).await;
    let wrapped = unwrapped(&bed, "GET", "secret/data/n", "").await;
    assert!(wrapped.contains(&format!(r#""data":{{"data":{NUMBERS},"#)), "{wrapped}");
    let wrapped = unwrapped(&bed, "GET", "cubbyhole/n", "").await;
    assert!(wrapped.contains(&format!(r#""data":{NUMBERS},"#)), "{wrapped}");
}

#[tokio::test]
async fn what_is_no_number_for_the_purpose_is_refused_as_ever() {
    let bed = bed_with(Limits::default()).await;
    for (body, why) in [
        (r#"{"data":{"n":1e999}}"#, "failed to parse JSON input"),
        (r#"{"data":{"n":01}}"#, "failed to parse JSON input"),
        (r#"{"data":{},"options":{"cas":99999999999999999999}}"#, "error parsing check-and-set parameter"),
        (r#"{"data":123456789012345678901234567890}"#, "expected type 'map[string]interface {}'"),
        (r#"{"n":123456789012345678901234567890}"#, "no data provided"),
    ] {
        let (status, answer) = ask(&bed, "POST", "secret/data/n", body, false).await;
        assert!(status == 400 && answer.contains(why), "{body}: {status} {answer}");
    }
    let large = format!(r#"{{"data":{{"n":0.{}}}}}"#, "1".repeat(600_000));
    assert_eq!(ask(&bed, "POST", "secret/data/n", &large, false).await.0, 413);
    let null = done(&bed, "POST", "secret/data/n", r#"{"data":null,"x":1.10}"#).await;
    assert!(null.contains(r#""version":1"#), "{null}");
    assert!(done(&bed, "GET", "secret/data/n", "").await.contains(r#""data":{"data":null,"#));
}
