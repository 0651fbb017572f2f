//! Where certificates and keys are, what is read from there, and whether it has changed since.

use super::credentials::Credentials;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Certificates and keys take a few KiB; lists of revoked ones may be longer.
const BYTES_MAX: u64 = 4 << 20;

/// What is wrong with certificates or keys, always with the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{}: cannot be read ({source})", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{}: {what}", file.display())]
    Content {
        /// Which.
        file: PathBuf,
        /// What is wrong with it, and what would be right.
        what: String,
    },
}

impl TlsError {
    pub(super) fn content(file: &Path, what: impl fmt::Display) -> Self {
        Self::Content { file: file.to_owned(), what: what.to_string() }
    }
}

/// The files of a node or a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA, or several: whoever is to be trusted.
    pub ca: PathBuf,
    /// The own certificate, intermediate ones behind it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Certificates that are no longer good.
    pub crl: Option<PathBuf>,
    /// Such a list has to be there; else it is honoured once it is.
    pub crl_required: bool,
}

/// By what a file is known to have been changed: links that are bent elsewhere included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl TlsFiles {
    /// The files of a directory as `duramen tls` writes them: `ca.pem`, `WHO.pem`, `WHO-key.pem` and,
    /// where there is one, `crl.pem`. `who` is `node` or `client`.
    pub fn in_dir(dir: &Path, who: &str) -> Self {
        Self {
            ca: dir.join("ca.pem"),
            cert: dir.join(format!("{who}.pem")),
            key: dir.join(format!("{who}-key.pem")),
            crl: Some(dir.join("crl.pem")),
            crl_required: false,
        }
    }

    /// Reads and checks them. Blocks shortly.
    ///
    /// # Errors
    /// Which file is not as it should be, and why.
    pub fn load(&self) -> Result<Credentials, TlsError> {
        let (ca, cert, key) = (read(&self.ca)?, read(&self.cert)?, read(&self.key)?);
        let crl = match &self.crl {
            None => None,
            Some(file) => match read(file) {
                Err(TlsError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && !self.crl_required =>
                {
                    None
                }
                read => Some((file.as_path(), read?)),
            },
        };
        let crl = crl.as_ref().map(|(file, bytes)| (*file, bytes.as_slice()));
        Credentials::read((&self.ca, &ca), (&self.cert, &cert), (&self.key, &key), crl)
    }

    /// What to do about a key that others than its owner may read; `None`: they may not. Blocks
    /// shortly.
    pub fn open_key(&self) -> Option<String> {
        let mode = std::fs::metadata(&self.key).ok()?.permissions().mode() & 0o777;
        let key = self.key.display();
        (mode & 0o077 != 0)
            .then(|| format!("{key}: others may read it (mode {mode:o}); chmod 600 {key}"))
    }

    /// What tells that one of them was changed. Blocks shortly.
    pub(super) fn stamps(&self) -> [Option<Stamp>; 4] {
        let of = |file: &Path| {
            std::fs::metadata(file).ok().map(|meta| Stamp {
                device: meta.dev(),
                inode: meta.ino(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            })
        };
        [of(&self.ca), of(&self.cert), of(&self.key), self.crl.as_deref().and_then(of)]
    }
}

/// A file of certificates or keys as a whole.
#[allow(clippy::disallowed_methods, reason = "the edge where certificates and keys are read")]
pub(super) fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(TlsError::content(file, "it is larger than 4MiB; expected PEM text"));
    }
    Ok(bytes)
}
