//! A small certificate authority: makes itself, certificates of nodes and clients, and the list of
//! those that are no longer good. Keys are ECDSA on P-256.
//!
//! A list of revoked certificates is found by its CA's name (RFC 5280, section 6.3.3), so that each
//! CA made here has a name of its own.

use super::credentials::parts;
use super::describe::{Described, describe, revoked_in};
use super::files::TlsError;
use super::identity::{CLIENT, PEER};
use crate::model::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate, X509Name};
use x509_parser::revocation_list::CertificateRevocationList;

/// What is made is valid from so long before it was made (unit: seconds): clocks differ.
const BACKDATED: i64 = 3600;
const DAY: i64 = 86_400;
/// A list of revoked certificates says that it is to be renewed after so many days.
const CRL_DAYS: i64 = 3650;
/// A common name has at most so many characters (RFC 5280, appendix A, `ub-common-name`).
const COMMON_NAME_MAX: usize = 64;

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// What was given is not usable.
    #[error(transparent)]
    Given(#[from] TlsError),
    /// It could not be made of what was given.
    #[error("it cannot be made: {0}")]
    Made(#[from] rcgen::Error),
    /// A name would not be read back as it was given.
    #[error("\"{}\" cannot be a name here: expected letters, digits, '.', '_', '-' and '@', at most 64", .0.escape_debug())]
    Name(String),
    /// No list takes the certificate of a CA back.
    #[error("{}: it is the certificate of a CA; nothing was changed", .0.display())]
    OfACa(PathBuf),
    /// Only the CA that signed a certificate takes it back.
    #[error(
        "{}: it was not signed by this CA ({ca}), but by {issuer}; nothing was changed",
        file.display()
    )]
    NotOurs {
        /// Which.
        file: PathBuf,
        /// This CA.
        ca: String,
        /// Whom it names.
        issuer: String,
    },
}

/// A certificate with its key, both as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key; nobody else's business.
    pub key: String,
}

/// The key is left out.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issued({} bytes)", self.certificate.len())
    }
}

/// A name or address that a certificate is good for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// Of an address.
    Address(IpAddr),
    /// Of a name.
    Name(String),
}

impl std::str::FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self::Address(address));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if (1..=253).contains(&text.len()) && !name.is_empty() && name.bytes().all(allowed) {
            Ok(Self::Name(text.to_ascii_lowercase()))
        } else {
            Err("expected a host by name or address, without a port".into())
        }
    }
}

/// Whom a certificate is to be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A node, reached by these hosts.
    Node {
        /// Its name.
        name: String,
        /// Where it is reached.
        hosts: Vec<Host>,
        /// It may also do what the client of this name may.
        also_client: bool,
    },
    /// A client.
    Client {
        /// Its name.
        name: String,
    },
}

/// Whether a certificate made here may have this name.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'@');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed) && !matches!(name, "." | "..")
}

/// See the module.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// A new one, called so and by the beginning of its key's hash.
    ///
    /// # Errors
    /// The machine gives no random numbers.
    pub fn new(name: &str, now: Timestamp, days: u32) -> Result<(Self, Issued), IssueError> {
        let key = KeyPair::generate()?;
        let mut params = validity(now, days);
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
        let own: String = digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let name: String = name.chars().take(COMMON_NAME_MAX - own.len() - 1).collect();
        params.distinguished_name.push(DnType::CommonName, format!("{name} {own}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key)?;
        let issued = Issued { certificate: certificate.pem(), key: key.serialize_pem() };
        let certificate = certificate.der().clone();
        Ok((Self { issuer: Issuer::new(params, key), certificate }, issued))
    }

    /// One made before, from its PEM files.
    ///
    /// # Errors
    /// Which of them is not usable.
    pub fn read(cert: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Self, IssueError> {
        let chain: Vec<CertificateDer<'static>> = parts(cert, "the certificate of a CA")?;
        let pem = String::from_utf8_lossy(key.1);
        let pair = KeyPair::from_pem(&pem).map_err(|_| {
            TlsError::content(key.0, "it does not hold a private key (PKCS 8) in PEM")
        })?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|error| TlsError::content(cert.0, error))?;
        if *parsed.public_key().subject_public_key.data != *pair.public_key_raw() {
            let what = format!("it is not the key of {}", cert.0.display());
            return Err(TlsError::content(key.0, what).into());
        }
        if !parsed.is_ca() {
            return Err(TlsError::content(cert.0, "it is not the certificate of a CA").into());
        }
        let issuer = Issuer::from_ca_cert_der(&chain[0], pair)?;
        Ok(Self { issuer, certificate: chain[0].clone() })
    }

    /// Makes a certificate and its key, valid for so many days.
    ///
    /// # Errors
    /// A name that would not be read back as it is.
    pub fn issue(&self, wanted: &Wanted, now: Timestamp, days: u32) -> Result<Issued, IssueError> {
        let mut params = validity(now, days);
        let (Wanted::Node { name, .. } | Wanted::Client { name }) = wanted;
        if !is_name(name) {
            return Err(IssueError::Name(name.clone()));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let client = format!("{CLIENT}{name}");
        let names = &mut params.subject_alt_names;
        match wanted {
            Wanted::Node { name, hosts, also_client } => {
                names.push(SanType::URI(Ia5String::try_from(format!("{PEER}{name}"))?));
                if *also_client {
                    names.push(SanType::URI(Ia5String::try_from(client)?));
                }
                for host in hosts {
                    names.push(match host {
                        Host::Address(address) => SanType::IpAddress(*address),
                        Host::Name(name) => SanType::DnsName(Ia5String::try_from(name.as_str())?),
                    });
                }
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            }
            Wanted::Client { .. } => names.push(SanType::URI(Ia5String::try_from(client)?)),
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// The list of revoked certificates, as PEM: those of this CA's lists of `before` and the ones
    /// given. Lists of other CAs that `before` holds stand behind it as they are.
    ///
    /// # Errors
    /// One of the files cannot be read as what it should be, or is not of this CA.
    pub fn revoke(
        &self,
        before: &[(&Path, &[u8])],
        certificates: &[(&Path, &[u8])],
        now: Timestamp,
    ) -> Result<(String, Vec<Described>), IssueError> {
        let (_, own) = x509_parser::parse_x509_certificate(&self.certificate)
            .map_err(|error| TlsError::content(Path::new("ca.pem"), error))?;
        let mut lists = Lists::default();
        for file in before {
            lists.read(*file, &own)?;
        }
        let Lists { mut revoked, number, others } = lists;
        let mut added = Vec::new();
        for file in certificates {
            let chain: Vec<CertificateDer<'static>> = parts(*file, "a certificate")?;
            let described = describe(&chain[0]).map_err(|what| TlsError::content(file.0, what))?;
            let path = file.0.to_owned();
            if described.is_ca {
                return Err(IssueError::OfACa(path));
            }
            let is_own = X509Certificate::from_der(&chain[0]).is_ok_and(|(_, read)| {
                is_signed_by(&own, read.issuer(), |key| read.verify_signature(Some(key)).is_ok())
            });
            if !is_own {
                let (ca, issuer) = (own.subject().to_string(), described.issuer);
                return Err(IssueError::NotOurs { file: path, ca, issuer });
            }
            revoked.entry(described.serial_bytes.clone()).or_insert(now);
            added.push(described);
        }
        let at = |time: Timestamp| moment(time.0.div_euclid(1000));
        let params = CertificateRevocationListParams {
            this_update: moment(now.0.div_euclid(1000) - BACKDATED),
            next_update: moment(now.0.div_euclid(1000) + CRL_DAYS * DAY),
            crl_number: SerialNumber::from_slice(&serial(number.saturating_add(1))),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .into_iter()
                .map(|(serial, time)| RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&serial),
                    revocation_time: at(time),
                    reason_code: Some(RevocationReason::Unspecified),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let mut pem = params.signed_by(&self.issuer)?.pem()?;
        for (_, list) in others.into_values() {
            pem.push_str(&list_as_pem(&list));
        }
        Ok((pem, added))
    }
}

/// What lists of revoked certificates say that are there already.
#[derive(Default)]
struct Lists {
    /// Those of the own CA: serial numbers, and since when.
    revoked: BTreeMap<Vec<u8>, Timestamp>,
    /// The highest number of a list of the own CA.
    number: u128,
    /// Of each other CA, by its name, the newest list and its number.
    others: BTreeMap<String, (u128, CertificateRevocationListDer<'static>)>,
}

impl Lists {
    fn read(&mut self, file: (&Path, &[u8]), own: &X509Certificate<'_>) -> Result<(), IssueError> {
        let what = "a list of revoked certificates";
        for list in parts::<CertificateRevocationListDer<'static>>(file, what)? {
            let read = revoked_in(&list).map_err(|what| TlsError::content(file.0, what))?;
            let (_, parsed) = CertificateRevocationList::from_der(&list)
                .map_err(|error| TlsError::content(file.0, error))?;
            let verified = |key: &SubjectPublicKeyInfo<'_>| parsed.verify_signature(key).is_ok();
            if is_signed_by(own, parsed.issuer(), verified) {
                self.number = self.number.max(read.number);
                self.revoked.extend(read.serials);
            } else if parsed.issuer().as_raw() == own.subject().as_raw() {
                let what = format!(
                    "it holds a list of another CA of the same name ({}), and nodes cannot tell \
                     them apart; take that list out",
                    read.issuer
                );
                return Err(TlsError::content(file.0, what).into());
            } else {
                let newest = self.others.entry(read.issuer).or_insert((read.number, list.clone()));
                if newest.0 < read.number {
                    *newest = (read.number, list);
                }
            }
        }
        Ok(())
    }
}

fn is_signed_by(
    ca: &X509Certificate<'_>,
    issuer: &X509Name<'_>,
    verified: impl FnOnce(&SubjectPublicKeyInfo<'_>) -> bool,
) -> bool {
    ca.subject().as_raw() == issuer.as_raw() && verified(ca.public_key())
}

/// A number as a certificate or list has it: whole bytes, none of them more than it needs.
fn serial(number: u128) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    bytes[first..].to_vec()
}

fn list_as_pem(list: &[u8]) -> String {
    let text = STANDARD.encode(list);
    let mut pem = String::from("-----BEGIN X509 CRL-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END X509 CRL-----\n"
}

fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn validity(now: Timestamp, days: u32) -> CertificateParams {
    let now = now.0.div_euclid(1000);
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.not_before = moment(now - BACKDATED);
    params.not_after = moment(now + i64::from(days) * DAY);
    params
}
