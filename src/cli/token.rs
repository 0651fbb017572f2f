//! `duramen token`: makes tokens, and the keys that they are signed and checked with. No node is asked.

use super::{Class, Failure, stdout};
use crate::access::{KeyKind, Secret, TokenTerms, new_token};
use crate::model::{Clock, SystemClock};
use crate::ops::settings::parse_duration;
use clap::{Args, Subcommand, ValueEnum};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of `duramen token`.
#[derive(Debug, Args)]
pub struct TokenCommands {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Print a token that says who its bearer is, until when.
    New(New),
    /// Make a key for tokens, or print what nodes are to have of it.
    Keys(Keys),
}

#[derive(Debug, Args)]
struct New {
    /// Who the bearer is.
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// For how long.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    ttl: String,
    /// The file of the key that signs it; of several keys in it the last.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Who issues it; as the nodes' access.token_issuer.
    #[arg(long, default_value = "duramen")]
    issuer: String,
    /// For whom it is; as the nodes' access.token_audience.
    #[arg(long, default_value = "duramen")]
    audience: String,
}

#[derive(Debug, Args)]
struct Keys {
    /// Make a new key, in a file that must not be there yet; only its owner may read it.
    #[arg(long, value_name = "FILE", conflicts_with = "public")]
    new: Option<PathBuf>,
    /// The new key's name, by which tokens name it; unlike that of any other key in use.
    #[arg(long, value_name = "NAME", requires = "new")]
    kid: Option<String>,
    /// What the new key is.
    #[arg(long, value_enum, default_value_t = Kind::Eddsa)]
    kind: Kind,
    /// Print what nodes are to have of the keys in these files (their --token-keys-file).
    #[arg(long, value_name = "FILE", num_args = 1..)]
    public: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Ed25519: nodes have only the public half, and cannot make tokens.
    Eddsa,
    /// A secret that nodes share: who has it can make tokens.
    Hs256,
}

fn odd(error: impl Into<String>) -> Failure {
    Failure::new(Class::BadInput, error.into())
}

/// Carries out one of them.
pub fn run(commands: TokenCommands) -> Result<(), Failure> {
    match commands.act {
        Act::New(new) => token(&new),
        Act::Keys(Keys { new: Some(file), kid, kind, .. }) => make(&file, kid, kind),
        Act::Keys(Keys { public, .. }) if !public.is_empty() => {
            let sets = public.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
            let all = Secret::together(sets).map_err(|error| odd(error.to_string()))?;
            stdout::write(format!("{}\n", all.for_nodes()).as_bytes())
        }
        Act::Keys(_) => Err(odd("say what is wanted of the keys")
            .advice("`duramen token keys --new FILE`, then `duramen token keys --public FILE`")),
    }
}

fn token(new: &New) -> Result<(), Failure> {
    let ttl = parse_duration(&new.ttl).filter(|ttl| *ttl >= Duration::from_secs(1));
    let ttl = ttl.ok_or_else(|| odd("the time is not one: give 30s, 15m, 12h or 7d"))?;
    let terms = TokenTerms {
        issuer: new.issuer.clone(),
        audience: new.audience.clone(),
        ..TokenTerms::default()
    };
    let now = SystemClock::new().wall();
    let token = new_token(&read(&new.key)?, &new.subject, &terms, now, ttl);
    let token = token.map_err(|error| odd(error.to_string()))?;
    stdout::write(format!("{token}\n").as_bytes())
}

#[allow(clippy::disallowed_methods, reason = "the edge where keys of tokens are read")]
fn read(file: &Path) -> Result<Secret, Failure> {
    let what = || format!("cannot read the keys from {}", file.display());
    let text = fs::read_to_string(file).map_err(|error| Failure::io(what(), &error))?;
    Secret::read(&text).map_err(|error| odd(format!("{}: {error}", file.display())))
}

#[allow(clippy::disallowed_methods, reason = "the edge where keys of tokens are written")]
fn make(file: &Path, kid: Option<String>, kind: Kind) -> Result<(), Failure> {
    let kind = match kind {
        Kind::Eddsa => KeyKind::EdDsa,
        Kind::Hs256 => KeyKind::Hs256,
    };
    let kid = kid.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let secret = Secret::generate(kind, &kid).map_err(|error| odd(error.to_string()))?;
    let written =
        File::options().write(true).create_new(true).mode(0o600).open(file).and_then(|mut file| {
            file.write_all(secret.text().as_bytes()).and_then(|()| file.sync_all())
        });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(Class::CannotCreate, format!("{} is there already", file.display()))
                .cause("keys are never written over; nothing was changed")
                .advice("move it away, or name another file")
        }
        _ => Failure::io(format!("cannot write the key to {}", file.display()), &error),
    })?;
    eprintln!(
        "key {kid} is in {}; keep it where only the issuer of tokens can read it",
        file.display()
    );
    eprintln!("nodes: `duramen token keys --public {}`", file.display());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at files")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_its_owners_only_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.json");
        make(&file, Some("k1".into()), Kind::Eddsa).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&file).unwrap();
        assert_eq!(make(&file, None, Kind::Hs256).unwrap_err().class, Class::CannotCreate);
        assert_eq!(fs::read(&file).unwrap(), before);
        let other = directory.path().join("other.json");
        assert_eq!(
            make(&other, Some(String::new()), Kind::Eddsa).unwrap_err().class,
            Class::BadInput
        );
        assert!(!other.exists());
        assert!(!read(&file).unwrap().for_nodes().contains("\"d\""));
    }
}
