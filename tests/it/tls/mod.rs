// Who is let in on which port, what becomes of connections when certificates change, and what a
// node tells of whom it turned away.

mod changes;
mod command;
mod handshakes;
mod matrix;
mod nodes;
mod turned_away;

use crate::harness::Lines;
use duramen::guards::tls::{Authority, ClientTls, Issued, TlsFiles, Wanted, describe};
use duramen::model::{Clock, SystemClock, Timestamp};
use duramen::ops::logger::{LoggerHandle, start_on};
use duramen::ops::settings::{LogFormat, Settings};
use duramen::testing::TestNode;
use duramen::wire::client::ClientOptions;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn now() -> Timestamp {
    SystemClock::new().wall()
}

/// A CA with a directory where it puts what it makes.
pub struct Pki {
    pub dir: tempfile::TempDir,
    pub authority: Authority,
    pub ca: Issued,
}

/// A certificate as a test wants it, also as nobody should make it.
#[derive(Default)]
pub struct Odd {
    pub common: Option<&'static str>,
    pub uris: &'static [&'static str],
    pub usages: Option<Vec<ExtendedKeyUsagePurpose>>,
    /// Days from now.
    pub valid: Option<(i64, i64)>,
    pub self_signed: bool,
}

impl Pki {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (authority, ca) = Authority::new("the test's CA", now(), 30).unwrap();
        Self { dir, authority, ca }
    }

    /// A CA that calls itself as this one does.
    pub fn impostor(&self) -> Authority {
        let own = CertificateDer::from_pem_slice(self.ca.certificate.as_bytes()).unwrap();
        let name = describe(&own).unwrap().subject;
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, name.strip_prefix("CN=").unwrap());
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let (cert, key) = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
        let file = Path::new("impostor.pem");
        Authority::read((file, cert.as_bytes()), (file, key.as_bytes())).unwrap()
    }

    pub fn node(&self, name: &str) -> PathBuf {
        let hosts = ["localhost", "127.0.0.1", "::1"].map(|host| host.parse().unwrap()).to_vec();
        let wanted = Wanted::Node { name: name.into(), hosts, also_client: false };
        self.put(name, "node", &self.authority.issue(&wanted, now(), 30).unwrap())
    }

    pub fn client(&self, name: &str) -> PathBuf {
        let issued = self.authority.issue(&Wanted::Client { name: name.into() }, now(), 30);
        self.put(name, "client", &issued.unwrap())
    }

    /// Writes over what was there, as a rotation does.
    pub fn put(&self, name: &str, who: &str, issued: &Issued) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in [
            ("ca.pem".to_owned(), &self.ca.certificate),
            (format!("{who}-key.pem"), &issued.key),
            (format!("{who}.pem"), &issued.certificate),
        ] {
            replace(&dir.join(file), text);
        }
        dir
    }

    pub fn odd(&self, odd: &Odd) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        if let Some(name) = odd.common {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        for uri in odd.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().unwrap()));
        params.extended_key_usages =
            odd.usages.clone().unwrap_or_else(|| vec![ExtendedKeyUsagePurpose::ClientAuth]);
        let at = |days: i64| {
            let seconds = now().0 / 1000 + days * 86_400;
            time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()
        };
        let (from, to) = odd.valid.unwrap_or((-1, 1));
        (params.not_before, params.not_after) = (at(from), at(to));
        let certificate = if odd.self_signed {
            params.self_signed(&key).unwrap()
        } else {
            let ca_key = KeyPair::from_pem(&self.ca.key).unwrap();
            let issuer = Issuer::from_ca_cert_pem(&self.ca.certificate, ca_key).unwrap();
            params.signed_by(&key, &issuer).unwrap()
        };
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Takes back the certificate of a client, in the directory of a node.
    pub fn revoke(&self, client: &Path, node: &Path) {
        self.revoke_file(&client.join("client.pem"), node);
    }

    /// Takes back a certificate, in a directory.
    pub fn revoke_file(&self, file: &Path, dir: &Path) {
        let list = dir.join("crl.pem");
        let bytes = std::fs::read(file).unwrap();
        let before = std::fs::read(&list).ok();
        let before = before.as_ref().map(|bytes| (list.as_path(), bytes.as_slice()));
        let revoked = self.authority.revoke(before.as_slice(), &[(file, &bytes)], now());
        let (pem, _) = revoked.unwrap();
        replace(&list, &pem);
    }

    /// What a client of this CA connects with, showing this or nothing.
    pub fn config(&self, shown: Option<&Issued>, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some(Issued { certificate, key }) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
            }
        };
        if !protocol.is_empty() {
            config.alpn_protocols = vec![protocol.to_vec()];
        }
        Arc::new(config)
    }
}

/// What a directory holds.
pub fn issued(dir: &Path, who: &str) -> Issued {
    let read = |file: String| std::fs::read_to_string(dir.join(file)).unwrap();
    Issued { certificate: read(format!("{who}.pem")), key: read(format!("{who}-key.pem")) }
}

pub fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("aside");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, file).unwrap();
}

/// With what a client library connects that has this directory.
pub fn options(dir: &Path) -> ClientOptions {
    let tls = ClientTls::new(&TlsFiles::in_dir(dir, "client").load().unwrap()).unwrap();
    ClientOptions { tls: Some(tls), ..ClientOptions::default() }
}

/// A node within TLS that tells what it logs.
pub struct Told {
    pub node: TestNode,
    lines: Lines,
    _handle: LoggerHandle,
}

impl Told {
    pub fn start(dir: &Path, change: impl FnOnce(&mut Settings)) -> Self {
        let lines = Lines::default();
        let clock = Arc::new(SystemClock::new());
        let spec = "info".parse().unwrap();
        let (logger, handle) = start_on(lines.clone(), LogFormat::Json, spec, clock);
        let builder = TestNode::builder().logger(logger).settings(|settings| {
            settings.tls.dir = Some(dir.to_owned());
            settings.node.name = Some("n1".into());
            change(settings);
        });
        Self { node: builder.start(), lines, _handle: handle }
    }

    /// Lines with this in them, so far.
    pub fn count(&self, text: &str) -> usize {
        self.lines.text().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until a further line has this in it.
    pub async fn tells(&self, text: &str, before: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.count(text) <= before {
            assert!(Instant::now() < deadline, "no line {text:?} in:\n{}", self.lines.text());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Grpc,
    Http,
}

impl Port {
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    pub fn of(self, node: &TestNode) -> SocketAddr {
        match self {
            Self::Grpc => node.rpc_addr(),
            Self::Http => node.http_addr(),
        }
    }

    pub fn protocol(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"h2",
            Self::Http => b"http/1.1",
        }
    }

    fn asks(self) -> &'static [u8] {
        match self {
            // The preface, and settings.
            Self::Grpc => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            Self::Http => b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
        }
    }

    fn is_answer(self, bytes: &[u8]) -> bool {
        match self {
            Self::Grpc => bytes.len() >= 9 && bytes[3] == 4,
            Self::Http => bytes.starts_with(b"HTTP/1.1 200"),
        }
    }
}

/// Connects, asks, and waits for the answer: a client that is let in keeps its connection.
pub async fn knock(
    port: Port,
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tcp = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
    stream.write_all(port.asks()).await?;
    let mut answer = [0; 256];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await??;
    if port.is_answer(&answer[..read]) {
        Ok(stream)
    } else {
        Err(std::io::Error::other(format!("{read} bytes that are no answer")))
    }
}

/// Waits for the end of a connection.
pub async fn until_closed(mut stream: TlsStream<TcpStream>) {
    let mut rest = [0; 1024];
    let ends = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    tokio::time::timeout(PATIENCE, ends).await.expect("the connection is closed");
}
