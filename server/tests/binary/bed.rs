//! A server's directory: configuration, certificates, data.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::common::{Server, Shell};

/// A directory with a configuration, certificates and the server's data.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let bed = Self { dir: tempfile::tempdir().unwrap() };
        bed.make_certificates();
        let path = |name: &str| bed.path(name).display().to_string();
        let config = format!(
            "listener \"tcp\" {{\n  address = \"127.0.0.1:0\"\n  tls_cert_file = \"{}\"\n  tls_key_file = \"{}\"\n}}\n\
             storage \"embedded\" {{ path = \"{}\" }}\naudit \"file\" {{ file_path = \"{}\" }}\nca_file = \"{}\"\n\
             ui = true\n",
            path("tls.crt"),
            path("tls.key"),
            path("data"),
            path("audit/audit.log"),
            path("ca.crt"),
        );
        std::fs::write(bed.path("coffer.hcl"), config).unwrap();
        bed
    }

    /// Writes more at the end of the configuration.
    pub(crate) fn add(&self, more: &str) {
        let text = std::fs::read_to_string(self.path("coffer.hcl")).unwrap();
        std::fs::write(self.path("coffer.hcl"), text + more).unwrap();
    }

    /// Writes more into the listener's stanza.
    pub(crate) fn listener(&self, more: &str) {
        let text = std::fs::read_to_string(self.path("coffer.hcl")).unwrap();
        let text = text.replacen("address =", &format!("{more}\n  address ="), 1);
        std::fs::write(self.path("coffer.hcl"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new authority and a certificate of it; files that exist are replaced.
    pub(crate) fn make_certificates(&self) {
        self.make(None);
    }

    /// The same, but the server's ended with the year before this one.
    pub(crate) fn make_expired(&self, year: i32) {
        self.make(Some(year));
    }

    fn make(&self, expired: Option<i32>) {
        let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut leaf = CertificateParams::new(names).unwrap();
        if let Some(year) = expired {
            leaf.not_before = date_time_ymd(year - 1, 1, 1);
            leaf.not_after = date_time_ymd(year, 1, 1);
        }
        let leaf = leaf.signed_by(&key, &ca).unwrap();
        let client_key = KeyPair::generate().unwrap();
        let mut client = CertificateParams::new(Vec::<String>::new()).unwrap();
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = client.signed_by(&client_key, &ca).unwrap();
        std::fs::write(self.path("client.crt"), client.pem()).unwrap();
        std::fs::write(self.path("client.key"), client_key.serialize_pem()).unwrap();
        std::fs::write(self.path("ca.crt"), ca.pem()).unwrap();
        std::fs::write(self.path("tls.crt"), leaf.pem()).unwrap();
        std::fs::write(self.path("tls.key"), key.serialize_pem()).unwrap();
    }

    pub(crate) fn serve(&self) -> (Server, Shell) {
        let server = Server::with_config(&self.path("coffer.hcl"));
        let shell = Shell::new(format!("https://{}", server.address), Some(self.path("ca.crt")));
        (server, shell)
    }
}
