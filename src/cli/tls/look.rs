//! Looking at certificates and lists of revoked ones: what they say, and whether they can be used.

use super::{Class, Failure, ShowArgs, VerifyArgs};
use crate::cli::observe::table::align;
use crate::cli::stdout;
use crate::guards::tls::{
    Described, RevokedList, Side, TlsFiles, certificates_in, describe, lists_in,
};
use crate::model::{Clock, SystemClock, Timestamp};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize)]
struct Shown {
    file: String,
    role: String,
    subject: String,
    issuer: String,
    names: Vec<String>,
    usages: Vec<&'static str>,
    not_before: String,
    not_after: String,
    key: String,
    serial: String,
    fingerprint: String,
}

impl Shown {
    fn new(file: &Path, read: Described) -> Self {
        let role = read.role();
        let Described { subject, issuer, names, usages, key, serial, fingerprint, .. } = read;
        Self {
            file: file.display().to_string(),
            role,
            subject,
            issuer,
            names,
            usages,
            not_before: read.not_before.rfc3339(),
            not_after: read.not_after.rfc3339(),
            key,
            serial,
            fingerprint,
        }
    }
}

pub fn show(args: &ShowArgs) -> Result<(), Failure> {
    let path = &args.path;
    let mut shown = Vec::new();
    if path.is_dir() {
        for file in pem_files(path)? {
            // Keys and lists are in such directories too.
            let Ok(certificates) = certificates_in(&file) else { continue };
            for certificate in &certificates {
                if let Ok(read) = describe(certificate) {
                    shown.push(Shown::new(&file, read));
                }
            }
        }
        if shown.is_empty() {
            let error = format!("{} holds no file with a certificate", path.display());
            return Err(Failure::new(Class::BadInput, error).advice("make some: duramen tls init"));
        }
    } else {
        let certificates = match certificates_in(path) {
            Ok(certificates) => certificates,
            Err(error) => match lists_in(path) {
                Ok(lists) => return show_lists(args, lists),
                Err(_) => return Err(error.into()),
            },
        };
        for certificate in &certificates {
            let read = describe(certificate);
            let read = read.map_err(|error| Failure::new(Class::BadInput, error))?;
            shown.push(Shown::new(path, read));
        }
    }
    args.shape.print(&shown, |shown| shown.iter().map(as_text).collect::<Vec<_>>().join("\n"))
}

#[derive(Debug, Serialize)]
struct ShownList {
    file: String,
    role: &'static str,
    issuer: String,
    number: u128,
    revoked: usize,
    next_update: Option<String>,
}

fn show_lists(args: &ShowArgs, lists: Vec<RevokedList>) -> Result<(), Failure> {
    let shown = lists.into_iter().map(|list| ShownList {
        file: args.path.display().to_string(),
        role: "list of revoked certificates",
        issuer: list.issuer,
        number: list.number,
        revoked: list.serials.len(),
        next_update: list.next_update.map(Timestamp::rfc3339),
    });
    let shown: Vec<ShownList> = shown.collect();
    args.shape.print(&shown, |shown| shown.iter().map(list_as_text).collect::<Vec<_>>().join("\n"))
}

fn list_as_text(shown: &ShownList) -> String {
    let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
    align(&[
        row("file", &shown.file),
        row("is", shown.role),
        row("issuer", &shown.issuer),
        row("number", &shown.number.to_string()),
        row("revoked", &shown.revoked.to_string()),
        row("next update", shown.next_update.as_deref().unwrap_or("no date")),
    ])
}

fn as_text(shown: &Shown) -> String {
    let usages = if shown.usages.is_empty() { "any".into() } else { shown.usages.join(", ") };
    let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
    align(&[
        row("file", &shown.file),
        row("is", &shown.role),
        row("subject", &shown.subject),
        row("issuer", &shown.issuer),
        row("names", &shown.names.join(" ")),
        row("usage", &usages),
        row("valid", &format!("{} to {}", shown.not_before, shown.not_after)),
        row("key", &shown.key),
        row("serial", &shown.serial),
        row("sha256", &shown.fingerprint),
    ])
}

fn pem_files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::io(format!("cannot list {}", dir.display()), &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let dir = &args.dir;
    // A node is connected to by clients and nodes, and connects to nodes itself.
    let mut holders =
        vec![("node", &[Side::Server, Side::Client][..]), ("client", &[Side::Client])];
    holders.retain(|(who, _)| dir.join(format!("{who}.pem")).exists());
    if holders.is_empty() {
        let error = format!("{} holds neither node.pem nor client.pem", dir.display());
        return Err(Failure::new(Class::Config, error).advice("make some: duramen tls init"));
    }
    let now = SystemClock::new().wall();
    let mut faults = Vec::new();
    let mut text = String::new();
    for (who, sides) in holders {
        let files = TlsFiles::in_dir(dir, who);
        let loaded = match files.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                faults.push(error.to_string());
                continue;
            }
        };
        let found: Vec<String> = loaded
            .faults(now, sides)
            .into_iter()
            .map(|fault| format!("{}: {fault}", files.cert.display()))
            .chain(files.open_key())
            .collect();
        if found.is_empty() {
            let read = loaded.chain().first().map(describe);
            let until = read.and_then(Result::ok).map(|read| (read.role(), read.not_after));
            let (role, until) =
                until.map_or_else(Default::default, |(role, until)| (role, until.rfc3339()));
            text += &format!("{}: good: {role}, until {until}\n", files.cert.display());
        }
        faults.extend(found);
    }
    stdout::write_text(&text)?;
    match &faults[..] {
        [] => Ok(()),
        faults => Err(Failure::new(Class::Config, "certificates or keys are not good")
            .cause(faults.join("; "))
            .advice(
                "duramen tls show tells what each says; make new ones: duramen tls node, client",
            )),
    }
}
