//! `duramen tls`: certificates for nodes and clients, made, looked at, and taken back.

mod look;
mod make;

use super::shape::Shape;
use super::{Class, Failure};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Where certificates are unless told otherwise.
const DIR_DEFAULT: &str = "./duramen-tls";

/// A directory; an empty name, as of a variable that says nothing, is none.
fn directory() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|name| match name.is_empty() {
        true => DIR_DEFAULT.into(),
        false => name.into(),
    })
}

/// Arguments of `duramen tls`.
#[derive(Debug, Args)]
#[command(after_help = "\
Four lines from nothing to a node that asks everybody who they are:
  duramen tls init
  duramen serve --tls-dir ./duramen-tls
  echo hello | duramen produce log --tls-dir ./duramen-tls
  duramen consume log                                         (is refused)
The file ca-key.pem makes certificates: keep it where no node is.")]
pub struct TlsArgs {
    #[command(subcommand)]
    command: TlsCommand,
}

#[derive(Debug, Subcommand)]
enum TlsCommand {
    /// Make a CA, the certificate of a node and that of a first client.
    Init(InitArgs),
    /// Make the certificate of a client, in a directory to be handed over as a whole.
    Client(ClientArgs),
    /// Make the certificate of a node, in a directory for its --tls-dir.
    Node(NodeArgs),
    /// Show certificates, or a list of revoked ones.
    Show(ShowArgs),
    /// Check whether certificates, keys and lists fit together and are valid now.
    Verify(VerifyArgs),
    /// Take certificates back: nodes close the connections of whoever shows them.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct Made {
    /// Where the CA is, and what it makes is put.
    #[arg(
        long, value_name = "DIR", env = "DURAMEN_TLS_DIR",
        default_value = DIR_DEFAULT, value_parser = directory()
    )]
    dir: PathBuf,
    /// For how many days what is made is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

#[derive(Debug, Args)]
struct InitArgs {
    #[command(flatten)]
    made: Made,
    /// The node's name, as in its --node-name [default: the host's name].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// A name or address by which the node is reached, beside localhost, 127.0.0.1 and ::1; may be
    /// given more than once.
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// The first client's name.
    #[arg(long, value_name = "NAME", default_value = "root")]
    client: String,
}

#[derive(Debug, Args)]
struct ClientArgs {
    /// Its name: what access is given to.
    name: String,
    #[command(flatten)]
    made: Made,
}

#[derive(Debug, Args)]
struct NodeArgs {
    /// Its name, as in its --node-name.
    name: String,
    /// A name or address by which it is reached, beside localhost, 127.0.0.1 and ::1; may be given
    /// more than once.
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// It may also act as the client of the same name, as a mirror does towards its source.
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    made: Made,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// A PEM file, or a directory with such files.
    #[arg(
        value_name = "FILE|DIR", env = "DURAMEN_TLS_DIR",
        default_value = DIR_DEFAULT, value_parser = directory()
    )]
    path: PathBuf,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The directory of a node or a client.
    #[arg(env = "DURAMEN_TLS_DIR", default_value = DIR_DEFAULT, value_parser = directory())]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The certificates, as PEM files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where the CA is; its crl.pem there, and those of nodes below it, are written anew.
    #[arg(
        long, value_name = "DIR", env = "DURAMEN_TLS_DIR",
        default_value = DIR_DEFAULT, value_parser = directory()
    )]
    dir: PathBuf,
}

/// Does what was asked for.
pub fn run(args: TlsArgs) -> Result<(), Failure> {
    match args.command {
        TlsCommand::Init(args) => make::init(args),
        TlsCommand::Client(args) => make::client(args),
        TlsCommand::Node(args) => make::node(args),
        TlsCommand::Revoke(args) => make::revoke(&args),
        TlsCommand::Show(args) => look::show(&args),
        TlsCommand::Verify(args) => look::verify(&args),
    }
}
