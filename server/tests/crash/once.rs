//! What may happen once, cut off at every step on its way: it never happens twice.

use coffer_client::wire::{Disclose, Envelope};
use coffer_client::{Call, Client};
use serde_json::{Value, json};

use crate::ceremonies::{Stage, at_every_step};

/// A call whose reply has data.
async fn data(client: &Client, method: &'static str, path: &str, body: &Value) -> Value {
    let reply: Envelope<Value> = client.exchange(Call::new(method, path), Some(body)).await.unwrap();
    reply.data.unwrap_or_default()
}

/// How many tokens there are from logins with secret ids.
async fn granted(client: &Client) -> usize {
    let mut count = 0;
    for accessor in client.list("auth/token/accessors").await.unwrap() {
        let found = data(client, "POST", "auth/token/lookup-accessor", &json!({"accessor": accessor})).await;
        count += usize::from(found["display_name"] == "approle");
    }
    count
}

pub(crate) fn secret_id() {
    let mut stage = Stage::new();
    let role_id = stage.run(async {
        let client = stage.client();
        client.write("sys/auth/approle", &json!({"type": "approle"})).await.unwrap();
        let role = json!({"secret_id_num_uses": 1, "token_policies": "default", "token_ttl": "10h"});
        client.write("auth/approle/role/app", &role).await.unwrap();
        data(&client, "GET", "auth/approle/role/app/role-id", &Value::Null).await["role_id"].clone()
    });
    at_every_step(&[], |crash| {
        let client = stage.client();
        let (login, before) = stage.run(async {
            let made = data(&client, "POST", "auth/approle/role/app/secret-id", &json!({})).await;
            (json!({"role_id": role_id, "secret_id": made["secret_id"]}), granted(&client).await)
        });
        let path = "auth/approle/login";
        let deed = client.exchange::<_, Value>(Call::new("POST", path), Some(&login));
        let acknowledged = stage.do_and_die(crash, deed).is_some();
        stage.come_back(crash);
        let client = stage.client();
        let place = &crash.place;
        stage.run(async {
            let there = granted(&client).await - before;
            assert!(there <= 1 && !(acknowledged && there == 0), "{place}: {there} after the crash");
            let again = client.exchange::<_, Value>(Call::new("POST", path), Some(&login)).await;
            assert_eq!(again.is_ok(), there == 0, "{place}: {there} before the second try");
            assert_eq!(granted(&client).await, before + 1, "{place}");
        });
        acknowledged
    });
}

pub(crate) fn wrapped() {
    let mut stage = Stage::new();
    at_every_step(&[], |crash| {
        let client = stage.client();
        let token = stage.run(async {
            let wrapping = client.with_wrap_ttl("10m").unwrap();
            let body = json!({"k": crash.number});
            let call = Call::new("POST", "sys/wrapping/wrap");
            let reply: Value = wrapping.exchange(call, Some(&body)).await.unwrap();
            Disclose::new(reply["wrap_info"]["token"].as_str().unwrap().to_owned())
        });
        let unwrap = Call::new("POST", "sys/wrapping/unwrap");
        let bearer = client.with_token(&token).unwrap();
        let nothing = json!({});
        let deed = bearer.exchange::<_, Value>(unwrap, Some(&nothing));
        let acknowledged = stage.do_and_die(crash, deed).is_some();
        stage.come_back(crash);
        let bearer = stage.client().with_token(&token).unwrap();
        let place = &crash.place;
        stage.run(async {
            match bearer.exchange::<_, Value>(unwrap, Some(&nothing)).await {
                Ok(reply) => {
                    assert!(!acknowledged, "{place}: given out twice");
                    assert_eq!(reply["data"]["k"], crash.number, "{place}");
                }
                Err(error) => assert_eq!(error.status(), Some(400), "{place}: {error}"),
            }
            let third = bearer.exchange::<_, Value>(unwrap, Some(&nothing)).await;
            assert!(third.is_err(), "{place}: given out again");
        });
        acknowledged
    });
}
