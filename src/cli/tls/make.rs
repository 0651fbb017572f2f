//! Making certificates and taking them back. Nothing is ever written over but the list of revoked
//! ones; keys are readable by their owner only.

use super::{Class, ClientArgs, Failure, InitArgs, NodeArgs, RevokeArgs};
use crate::cli::stdout;
use crate::guards::tls::{Authority, Host, IssueError, Issued, TlsError, Wanted, is_name};
use crate::model::{Clock, SystemClock, Timestamp};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// For how many days a CA is valid.
const CA_DAYS: u32 = 3650;
/// What a node is reached by on its own machine.
const OWN_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Given(error) => error.into(),
            IssueError::OfACa(_) => Self::new(Class::BadInput, error.to_string())
                .advice("a CA is no longer trusted where it is taken out of ca.pem, at all nodes"),
            IssueError::NotOurs { .. } => Self::new(Class::BadInput, error.to_string())
                .advice("name the directory of the CA that signed it with --dir"),
            IssueError::Name(_) => Self::new(Class::BadInput, error.to_string()),
            IssueError::Made(_) => Self::new(Class::Runtime, error.to_string()),
        }
    }
}

fn now() -> Timestamp {
    SystemClock::new().wall()
}

pub fn init(args: InitArgs) -> Result<(), Failure> {
    let InitArgs { made, node_name, host, client } = args;
    let host_name = || Some(hostname::get().ok()?.to_string_lossy().into_owned());
    let name = node_name.or_else(host_name).unwrap_or_else(|| "node".into());
    check_name(&name)?;
    check_name(&client)?;
    let hosts = hosts(&host)?;
    let dir = &made.dir;
    let file = |name: &str| dir.join(name);
    let names =
        ["ca.pem", "ca-key.pem", "node.pem", "node-key.pem", "client.pem", "client-key.pem"];
    let all = names.map(file);
    // Before anything is written: half a directory would help nobody.
    if let Some(there) = all.iter().find(|path| path.exists()) {
        return Err(exists(there));
    }
    let now = now();
    let (authority, ca) = Authority::new(&format!("duramen CA of {name}"), now, CA_DAYS)?;
    let node = Wanted::Node { name: name.clone(), hosts, also_client: false };
    let node = authority.issue(&node, now, made.days)?;
    let first = authority.issue(&Wanted::Client { name: client.clone() }, now, made.days)?;
    make_directory(dir)?;
    for (who, issued) in [("ca", &ca), ("node", &node), ("client", &first)] {
        put(dir, who, issued)?;
    }
    let shown = dir.display();
    stdout::write_text(&format!(
        "made in {shown}: a CA, the certificate of the node {name}, that of the client {client}\n\n  \
         duramen serve --node-name {name} --tls-dir {shown}\n  \
         echo hello | duramen produce log --tls-dir {shown}\n\n\
         {shown}/ca-key.pem makes certificates: keep it where no node is\n"
    ))
}

pub fn client(args: ClientArgs) -> Result<(), Failure> {
    let ClientArgs { name, made } = args;
    check_name(&name)?;
    let to = made.dir.join("clients").join(&name);
    let wanted = Wanted::Client { name: name.clone() };
    issue_into(&made, &to, "client", &wanted)?;
    let to = to.display();
    stdout::write_text(&format!(
        "made in {to}: the certificate of the client {name}\n\n  \
         duramen consume log --tls-dir {to}\n"
    ))
}

pub fn node(args: NodeArgs) -> Result<(), Failure> {
    let NodeArgs { name, host, client, made } = args;
    check_name(&name)?;
    let to = made.dir.join("nodes").join(&name);
    let hosts = hosts(&host)?;
    let wanted = Wanted::Node { name: name.clone(), hosts, also_client: client };
    issue_into(&made, &to, "node", &wanted)?;
    let to = to.display();
    stdout::write_text(&format!(
        "made in {to}: the certificate of the node {name}\n\n  \
         duramen serve --node-name {name} --tls-dir {to}\n"
    ))
}

fn issue_into(made: &super::Made, to: &Path, who: &str, wanted: &Wanted) -> Result<(), Failure> {
    let (ca, authority) = authority(&made.dir)?;
    let files =
        [to.join("ca.pem"), to.join(format!("{who}.pem")), to.join(format!("{who}-key.pem"))];
    if let Some(there) = files.iter().find(|path| path.exists()) {
        return Err(exists(there));
    }
    let issued = authority.issue(wanted, now(), made.days)?;
    make_directory(to)?;
    create(&to.join("ca.pem"), &ca, 0o644)?;
    put(to, who, &issued)?;
    match read(&made.dir.join("crl.pem")) {
        Ok(list) => replace(&to.join("crl.pem"), &list),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("cannot read", &made.dir.join("crl.pem"), &error)),
    }
}

pub fn revoke(args: &RevokeArgs) -> Result<(), Failure> {
    let RevokeArgs { files, dir } = args;
    let (_, authority) = authority(dir)?;
    let nodes = std::fs::read_dir(dir.join("nodes")).into_iter().flatten().flatten();
    // Also an archive of one may lie there.
    let nodes = nodes.map(|node| node.path()).filter(|node| node.is_dir());
    let mut lists: Vec<PathBuf> = nodes.map(|node| node.join("crl.pem")).collect();
    lists.sort();
    lists.insert(0, dir.join("crl.pem"));
    let mut before = Vec::new();
    // Those of nodes too: the CA's own may be an older copy, and a list must not shrink.
    for list in &lists {
        match read(list) {
            Ok(bytes) => before.push((list, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("cannot read", list, &error)),
        }
    }
    let mut given = Vec::new();
    for file in files {
        given.push((file, read(file).map_err(|error| failed("cannot read", file, &error))?));
    }
    let (pem, revoked) = authority.revoke(&named(&before), &named(&given), now())?;
    let mut text = String::new();
    for one in revoked {
        text += &format!("taken back: {}, serial {}\n", one.role(), one.serial);
    }
    for list in &lists {
        replace(list, pem.as_bytes())?;
        text += &format!("written: {}\n", list.display());
    }
    text += "bring it to the --tls-dir of every node, which takes it over within a second or two\n";
    stdout::write_text(&text)
}

fn named<'a>(files: &'a [(&PathBuf, Vec<u8>)]) -> Vec<(&'a Path, &'a [u8])> {
    files.iter().map(|(file, bytes)| (file.as_path(), bytes.as_slice())).collect()
}

/// The CA of a directory, and its certificate.
fn authority(dir: &Path) -> Result<(Vec<u8>, Authority), Failure> {
    let (cert, key) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
    let open = |file: &PathBuf| {
        read(file).map_err(|source| {
            Failure::from(TlsError::Read { file: file.clone(), source })
                .advice("make a CA with: duramen tls init; or name its directory with --dir")
        })
    };
    let (ca, key_pem) = (open(&cert)?, open(&key)?);
    let authority = Authority::read((&cert, &ca), (&key, &key_pem))?;
    Ok((ca, authority))
}

fn check_name(name: &str) -> Result<(), Failure> {
    if is_name(name) { Ok(()) } else { Err(IssueError::Name(name.to_owned()).into()) }
}

fn hosts(given: &[String]) -> Result<Vec<Host>, Failure> {
    let all = OWN_HOSTS.into_iter().chain(given.iter().map(String::as_str));
    let mut hosts = Vec::new();
    for text in all {
        let host = text.parse().map_err(|error| {
            Failure::new(Class::BadInput, format!("--host {}: {error}", text.escape_debug()))
        })?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

fn put(dir: &Path, who: &str, issued: &Issued) -> Result<(), Failure> {
    create(&dir.join(format!("{who}-key.pem")), issued.key.as_bytes(), 0o600)?;
    create(&dir.join(format!("{who}.pem")), issued.certificate.as_bytes(), 0o644)
}

fn make_directory(dir: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| failed("cannot make the directory", dir, &error))
}

#[allow(clippy::disallowed_methods, reason = "the edge where certificates and keys are read")]
fn read(file: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(file)
}

/// Never writes over anything.
#[allow(clippy::disallowed_methods, reason = "the edge where certificates and keys are written")]
fn create(file: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let mut opened = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => failed("cannot make", file, &error),
    })?;
    let written = opened.write_all(bytes).and_then(|()| opened.sync_all());
    written.map_err(|error| failed("cannot write", file, &error))
}

/// At once and as a whole: a node may read it at any time.
fn replace(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut aside = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
        aside.write_all(bytes)?;
        aside.as_file().sync_all()?;
        aside.persist(file).map_err(|error| error.error).map(|_| ())
    };
    write().map_err(|error| failed("cannot write", file, &error))
}

fn exists(file: &Path) -> Failure {
    Failure::new(Class::CannotCreate, format!("{} is there already", file.display()))
        .cause("certificates and keys are never written over; nothing was changed")
        .advice("move it away, or name another directory with --dir")
}

fn failed(what: &str, file: &Path, error: &io::Error) -> Failure {
    Failure::io(format!("{what} {}", file.display()), error)
}
