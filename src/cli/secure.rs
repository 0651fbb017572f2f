//! With what a client command secures its connections, and shows who asks.

use super::{Class, Failure};
use crate::guards::tls::{ClientTls, TlsFiles};
use crate::wire::client::{Bearer, ClientOptions};
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// How a client command connects.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    token: TokenArgs,
}

impl ClientArgs {
    /// As options of a client.
    ///
    /// # Errors
    /// A file is missing, or not as it should be.
    pub fn options(&self) -> Result<ClientOptions, Failure> {
        let (tls, token) = (self.tls.tls()?, self.token.bearer()?);
        Ok(ClientOptions { tls, token, ..ClientOptions::default() })
    }
}

/// What the environment says; an empty variable says nothing. Asked for here, and not by the reader of
/// arguments, to whom a variable would be as good as a flag, and two of them a contradiction.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The certificates of a client command.
#[derive(Debug, Clone, Default, Args)]
struct TlsArgs {
    /// Connect within TLS: where ca.pem, client.pem and client-key.pem are (duramen tls client)
    /// [env: DURAMEN_TLS_DIR].
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// The CA that nodes' certificates are of [default: ca.pem of --tls-dir].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show [default: client.pem of --tls-dir].
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key [default: client-key.pem of --tls-dir].
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl TlsArgs {
    /// What is secured how; `None`: nothing is.
    ///
    /// # Errors
    /// A file is missing, or not as it should be.
    pub fn tls(&self) -> Result<Option<ClientTls>, Failure> {
        let Self { tls_dir, ca, cert, key } = self;
        let named = variable("DURAMEN_TLS_DIR").map(PathBuf::from);
        // The list of a directory that only the environment names is of its CA, not of another.
        let is_other_ca = tls_dir.is_none() && ca.is_some();
        let tls_dir = tls_dir.as_ref().or(named.as_ref());
        if tls_dir.is_none() && ca.is_none() && cert.is_none() {
            return Ok(None);
        }
        let mut files = TlsFiles::in_dir(tls_dir.map_or(".".as_ref(), PathBuf::as_path), "client");
        if is_other_ca {
            files.crl = None;
        }
        if tls_dir.is_none() && (ca.is_none() || cert.is_none()) {
            let error = "a client needs --ca, --cert and --key, or --tls-dir with all of them";
            return Err(Failure::new(Class::BadInput, error)
                .advice("make a certificate with: duramen tls client NAME"));
        }
        for (file, given) in [(&mut files.ca, ca), (&mut files.cert, cert), (&mut files.key, key)] {
            if let Some(given) = given {
                file.clone_from(given);
            }
        }
        let tls = ClientTls::new(&files.load()?);
        tls.map(Some).map_err(|error| Failure::new(Class::Config, error))
    }
}

/// How a client shows who it is, beside its certificate or without one.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct TokenArgs {
    /// A file with the token that tells who asks. Without this and --token: DURAMEN_TOKEN, the token
    /// itself; without that DURAMEN_TOKEN_FILE.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself: others on this machine can see it; prefer --token-file.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
}

impl TokenArgs {
    /// What is shown; nothing, where nothing is given.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    #[allow(clippy::disallowed_methods, reason = "the edge where the file of the token is read")]
    pub fn bearer(&self) -> Result<Bearer, Failure> {
        let (mut token, mut file) = (self.token.clone(), self.token_file.clone());
        if token.is_none() && file.is_none() {
            token = variable("DURAMEN_TOKEN").map(|token| token.to_string_lossy().into_owned());
            file = variable("DURAMEN_TOKEN_FILE").map(PathBuf::from);
        }
        let text = match (token, file) {
            (Some(token), _) => token,
            (None, Some(file)) => std::fs::read_to_string(&file).map_err(|error| {
                Failure::io(format!("cannot read the token from {}", file.display()), &error)
            })?,
            (None, None) => return Ok(Bearer::default()),
        };
        Bearer::new(&text).ok_or_else(|| {
            Failure::new(Class::BadInput, "what is given as a token is none")
                .advice("`duramen token new` makes one")
        })
    }
}
