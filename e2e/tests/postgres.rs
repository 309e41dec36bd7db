//! The harness's own Postgres: TLS with a checked name, an admin who can make logins, and nothing left afterwards.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use coffer_e2e::{Login, Postgres, connect, init};

#[tokio::test]
async fn serves_over_tls_only_and_leaves_nothing() {
    init();
    let postgres = Postgres::start(&["127.0.0.1"], &["orders-pg.platform.svc"]).await.unwrap();
    let port = postgres.port();

    let admin = postgres.connect(postgres.admin()).await.unwrap();
    admin.batch_execute("CREATE ROLE \"v-somebody\" LOGIN PASSWORD 'x' IN ROLE orders_rw").await.unwrap();
    assert_eq!(postgres.made_accounts().await.unwrap(), ["v-somebody"]);
    admin.batch_execute("ALTER ROLE \"v-somebody\" NOLOGIN").await.unwrap();
    assert_eq!(postgres.made_accounts().await.unwrap(), ["v-somebody"], "a locked account is still there");
    admin.batch_execute("ALTER ROLE \"v-somebody\" LOGIN").await.unwrap();
    let login = Login { username: "v-somebody".to_owned(), password: "x".to_owned() };
    let session = postgres.connect(&login).await.unwrap();
    assert_eq!(session.query("SELECT * FROM orders", &[]).await.unwrap().len(), 2);
    assert_eq!(postgres.sessions("v-somebody").await.unwrap(), 1);

    let parameters =
        format!("host=127.0.0.1 port={port} user=v-somebody password=x dbname=orders sslmode=disable");
    let plain = tokio_postgres::connect(&parameters, tokio_postgres::NoTls).await;
    assert!(plain.is_err(), "a session without TLS was let in");

    let ca = postgres.ca_pem().to_owned();
    drop(postgres);
    assert!(connect("127.0.0.1", port, "orders", &login, &ca).await.is_err(), "it still listens");
}
