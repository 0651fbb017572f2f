// What a certificate is taken for, what files are refused and how it is said, and what changes when
// they change.

use super::credentials::unix_time;
use super::*;
use crate::model::{Proof, Timestamp};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const DAY: i64 = 86_400_000;

fn certificate(common: &[&str], uris: &[&str]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    for (number, name) in common.iter().enumerate() {
        let kind = match number {
            0 => DnType::CommonName,
            _ => DnType::from_oid(&[2, 5, 4, 3]),
        };
        params.distinguished_name.push(kind, *name);
    }
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(*uri).unwrap()));
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn identity(common: &[&str], uris: &[&str]) -> Result<(Option<String>, Option<String>), String> {
    let read = Identity::of(&certificate(common, uris)).map_err(|error| error.to_string())?;
    let text = |name: Option<std::sync::Arc<str>>| name.map(|name| name.to_string());
    Ok((text(read.subject), text(read.peer)))
}

#[test]
fn a_name_among_the_alternatives_counts_before_the_common_name() {
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(identity(&["root"], &[]), Ok((named("root"), None)));
    assert_eq!(identity(&["root"], &["duramen://ada"]), Ok((named("ada"), None)));
    assert_eq!(identity(&["root"], &["https://x/", "spiffe://a/b"]), Ok((named("root"), None)));
    assert_eq!(identity(&[], &[]), Ok((None, None)), "it is somebody's, and no one's name");
}

#[test]
fn a_node_is_no_client_unless_it_says_so() {
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(identity(&["n1"], &["duramen://peer/n1"]), Ok((None, named("n1"))));
    let both = &["duramen://peer/n1", "duramen://copier"];
    assert_eq!(identity(&["n1"], both), Ok((named("copier"), named("n1"))));
    assert_eq!(identity(&[], &["duramen://peer"]), Ok((named("peer"), None)), "a client's name");
    let caller = Identity::of(&certificate(&["n1"], both)).unwrap().caller();
    assert_eq!((caller.proof, caller.peer.as_deref()), (Proof::Certificate, Some("n1")));
}

#[test]
fn names_that_are_unclear_are_nobodys() {
    for (common, uris) in [
        (&["a\nb"][..], &[][..]),
        (&[""], &[]),
        (&["x"], &["duramen://"]),
        (&["x"], &["duramen://a", "duramen://b"]),
        (&["x"], &["duramen://peer/a", "duramen://peer/b"]),
        (&["x"], &["duramen://peer/"]),
        (&["a\0b"], &[]),
    ] {
        let read = identity(common, uris);
        assert!(read.is_err(), "{common:?} {uris:?}: {read:?}");
    }
    let long = "x".repeat(257);
    assert!(identity(&[&long], &[]).is_err());
    assert!(Identity::of(&CertificateDer::from(b"nonsense".to_vec())).is_err());
}

#[allow(clippy::disallowed_methods, reason = "a test writes the files of certificates")]
fn write(dir: &Path, name: &str, text: &str) {
    // As a rename: whoever reads sees one or the other.
    let aside = dir.join("aside");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, dir.join(name)).unwrap();
}

fn node(name: &str) -> Wanted {
    let hosts = vec!["localhost".parse().unwrap(), "127.0.0.1".parse().unwrap()];
    Wanted::Node { name: name.into(), hosts, also_client: false }
}

fn client(name: &str) -> Wanted {
    Wanted::Client { name: name.into() }
}

fn put(dir: &Path, who: &str, issued: &Issued) {
    write(dir, &format!("{who}.pem"), &issued.certificate);
    write(dir, &format!("{who}-key.pem"), &issued.key);
}

/// A directory of a node.
fn directory() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let (authority, ca) = Authority::new("test CA", NOW, 30).unwrap();
    write(dir.path(), "ca.pem", &ca.certificate);
    put(dir.path(), "node", &authority.issue(&node("n1"), NOW, 30).unwrap());
    (dir, authority)
}

fn chain(issued: &Issued) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()]
}

#[test]
fn a_fault_names_the_file_and_what_is_wrong_with_it() {
    let (dir, authority) = directory();
    let dir = dir.path();
    let files = TlsFiles::in_dir(dir, "node");
    files.load().unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test keeps what it will spoil")]
    let ca = std::fs::read_to_string(dir.join("ca.pem")).unwrap();
    let other = authority.issue(&node("n2"), NOW, 30).unwrap();
    let own = authority.issue(&node("n1"), NOW, 30).unwrap();
    for (file, text, expected) in [
        ("node-key.pem", other.key.as_str(), "is not the key of"),
        ("node-key.pem", own.certificate.as_str(), "does not hold a private key"),
        ("node.pem", "", "does not hold a certificate"),
        (
            "node.pem",
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
            "not sound PEM",
        ),
        ("ca.pem", own.key.as_str(), "does not hold certificates of a CA"),
        ("crl.pem", own.certificate.as_str(), "does not hold a list of revoked certificates"),
    ] {
        put(dir, "node", &own);
        write(dir, "ca.pem", &ca);
        write(dir, file, text);
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(expected), "{error}");
        assert!(!error.contains(own.key.lines().nth(1).unwrap()), "a key is never repeated");
    }
    let gone = TlsFiles::in_dir(Path::new("/nowhere"), "node").load().unwrap_err().to_string();
    assert!(gone.contains("/nowhere/ca.pem") && gone.contains("No such file"), "{gone}");
}

#[test]
fn changed_files_are_taken_over_and_faulty_ones_leave_everything_as_it_was() {
    let (dir, authority) = directory();
    let tls = Tls::open(TlsFiles::in_dir(dir.path(), "node"), None).unwrap();
    let ada = chain(&authority.issue(&client("ada"), NOW, 30).unwrap());
    let first = tls.now();
    first.lets_in(&ada, NOW).unwrap();
    assert_eq!(tls.reload(false).unwrap(), Reloaded::Unchanged);

    write(dir.path(), "node-key.pem", "nonsense");
    assert!(tls.reload(false).is_err());
    assert_eq!(tls.reload(false).unwrap(), Reloaded::Unchanged, "told once");
    assert!(tls.now().serves_as(&first));

    put(dir.path(), "node", &authority.issue(&node("n1"), NOW, 30).unwrap());
    assert_eq!(tls.reload(false).unwrap(), Reloaded::Changed);
    assert!(!tls.now().serves_as(&first), "it shows another certificate");
    tls.now().lets_in(&ada, NOW).unwrap();

    let (other, ca) = Authority::new("another CA", NOW, 30).unwrap();
    write(dir.path(), "ca.pem", &ca.certificate);
    assert_eq!(tls.reload(false).unwrap(), Reloaded::Changed);
    let refused = tls.now().lets_in(&ada, NOW).unwrap_err();
    assert!(refused.contains("not trusted here"), "{refused}");
    tls.now().lets_in(&chain(&other.issue(&client("ada"), NOW, 30).unwrap()), NOW).unwrap();
}

#[test]
fn whoever_is_revoked_is_not_let_in_and_a_list_that_is_gone_lets_nobody_in_again() {
    let (dir, authority) = directory();
    let path = dir.path().join("ada.pem");
    let tls = Tls::open(TlsFiles::in_dir(dir.path(), "node"), None).unwrap();
    let (ada, bob) = (
        authority.issue(&client("ada"), NOW, 30).unwrap(),
        authority.issue(&client("bob"), NOW, 30).unwrap(),
    );
    let first = tls.now();
    let (list, added) = authority.revoke(&[], &[(&path, ada.certificate.as_bytes())], NOW).unwrap();
    assert_eq!(added[0].role(), "client ada");
    write(dir.path(), "crl.pem", &list);
    assert_eq!(tls.reload(false).unwrap(), Reloaded::Changed);
    assert!(tls.now().serves_as(&first), "nobody else has to connect anew");
    let refused = tls.now().lets_in(&chain(&ada), NOW).unwrap_err();
    assert!(refused.contains("is revoked"), "{refused}");
    tls.now().lets_in(&chain(&bob), NOW).unwrap();

    let crl = dir.path().join("crl.pem");
    let (both, _) = authority
        .revoke(&[(&crl, list.as_bytes())], &[(&path, bob.certificate.as_bytes())], NOW)
        .unwrap();
    write(dir.path(), "crl.pem", &both);
    assert_eq!(tls.reload(false).unwrap(), Reloaded::Changed);
    for gone in [&ada, &bob] {
        assert!(tls.now().lets_in(&chain(gone), NOW).is_err(), "a list grows");
    }
    write(dir.path(), "elsewhere", "");
    #[allow(clippy::disallowed_methods, reason = "a test takes a list away")]
    std::fs::remove_file(&crl).unwrap();
    assert!(tls.reload(false).unwrap_err().to_string().contains("is gone"));
    assert!(tls.now().lets_in(&chain(&ada), NOW).is_err());

    // Neither does an older one.
    write(dir.path(), "crl.pem", &list);
    let older = tls.reload(false).unwrap_err().to_string();
    assert!(older.contains("is older (number 1) than the one in force (2)"), "{older}");
    assert!(tls.now().lets_in(&chain(&bob), NOW).is_err());
    // Of two of a CA the newer counts, whichever stands first.
    write(dir.path(), "crl.pem", &format!("{list}{both}"));
    assert_eq!(tls.reload(false).unwrap(), Reloaded::Changed);
    assert!(tls.now().lets_in(&chain(&bob), NOW).is_err());
}

/// What a list says, by whose it is: how many are on it.
fn listed(list: &str) -> Vec<(String, u128, usize)> {
    use rustls::pki_types::CertificateRevocationListDer;
    CertificateRevocationListDer::pem_slice_iter(list.as_bytes())
        .map(|list| revoked_in(&list.unwrap()).unwrap())
        .map(|list| (list.issuer, list.number, list.serials.len()))
        .collect()
}

#[test]
fn each_ca_has_a_list_of_its_own_and_only_its_own_certificates_are_on_it() {
    let (dir, first) = directory();
    let (second, second_ca) = Authority::new("test CA", NOW, 30).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test puts two CAs into one file")]
    let first_ca = std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    write(dir.path(), "ca.pem", &format!("{first_ca}{}", second_ca.certificate));
    let path = dir.path().join("one.pem");
    let ada = first.issue(&client("ada"), NOW, 30).unwrap();
    let bob = second.issue(&client("bob"), NOW, 30).unwrap();
    let kept = second.issue(&client("kept"), NOW, 30).unwrap();
    let one = |issued: &Issued| issued.certificate.clone().into_bytes();

    let revoke = |ca: &Authority, before: &[&str], pem: &[u8]| {
        let before: Vec<_> = before.iter().map(|list| (&*path, list.as_bytes())).collect();
        ca.revoke(&before, &[(&path, pem)], NOW).map(|(list, _)| list)
    };
    let list = revoke(&first, &[], &one(&ada)).unwrap();
    let both = revoke(&second, &[&list], &one(&bob)).unwrap();
    let numbers = |list| listed(list).into_iter().map(|(_, n, len)| (n, len)).collect::<Vec<_>>();
    assert_eq!(numbers(&both), [(1, 1), (1, 1)]);
    assert!(both.ends_with(&list), "the other CA's is as it was: {both}");
    // Of several copies the newest of each counts, and what any of them says.
    let again = revoke(&first, &[&both, &list], &one(&first.issue(&client("c"), NOW, 1).unwrap()));
    assert_eq!(numbers(&again.unwrap()), [(2, 2), (1, 1)]);

    write(dir.path(), "crl.pem", &both);
    let tls = Tls::open(TlsFiles::in_dir(dir.path(), "node"), None).unwrap();
    tls.now().lets_in(&chain(&kept), NOW).unwrap();
    for gone in [&ada, &bob] {
        let refused = tls.now().lets_in(&chain(gone), NOW).unwrap_err();
        assert!(refused.contains("is revoked"), "{refused}");
    }
    // One CA's list is gone: those on it would not be refused for it any more.
    write(dir.path(), "crl.pem", &list);
    assert!(tls.reload(false).unwrap_err().to_string().contains("is gone"));
    // With its CA it may go.
    write(dir.path(), "ca.pem", &first_ca);
    assert_eq!(tls.reload(true).unwrap(), Reloaded::Changed);

    for (pem, expected) in [
        (one(&bob), "was not signed by this CA (CN=test CA "),
        (first_ca.clone().into_bytes(), "is the certificate of a CA"),
        (second_ca.certificate.into_bytes(), "is the certificate of a CA"),
    ] {
        let refused = revoke(&first, &[&both], &pem).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
}

#[test]
fn cas_of_one_name_are_told_of_before_a_list_mixes_them_up() {
    let (dir, authority) = directory();
    let (_, long) = Authority::new(&"x".repeat(100), NOW, 30).unwrap();
    let named = describe(&chain(&long)[0]).unwrap().subject;
    assert_eq!(named.len(), "CN=".len() + 64, "{named}");

    let twin = || {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, "twin");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    };
    let (one, other) = (twin(), twin());
    let read = |ca: &Issued| {
        let (cert, key) = (ca.certificate.as_bytes(), ca.key.as_bytes());
        Authority::read((Path::new("ca.pem"), cert), (Path::new("ca-key.pem"), key)).unwrap()
    };
    let ada = read(&one).issue(&client("ada"), NOW, 30).unwrap();
    let path = dir.path().join("ada.pem");
    let ada = [(&*path, ada.certificate.as_bytes())];
    let (list, _) = read(&one).revoke(&[], &ada, NOW).unwrap();
    let refused = read(&other).revoke(&[(&path, list.as_bytes())], &[], NOW).unwrap_err();
    assert!(refused.to_string().contains("another CA of the same name (CN=twin"), "{refused}");
    let refused = read(&other).revoke(&[], &ada, NOW).unwrap_err();
    assert!(refused.to_string().contains("was not signed by this CA"), "{refused}");

    put(dir.path(), "node", &authority.issue(&node("n1"), NOW, 30).unwrap());
    write(dir.path(), "ca.pem", &format!("{}{}", one.certificate, other.certificate));
    let files = TlsFiles::in_dir(dir.path(), "node");
    files.load().unwrap();
    write(dir.path(), "crl.pem", &list);
    let refused = files.load().unwrap_err().to_string();
    assert!(refused.contains("ca.pem") && refused.contains("two CAs of the name"), "{refused}");
    // Of one and the same key it may hold several.
    write(dir.path(), "ca.pem", &format!("{}{}", one.certificate, one.certificate));
    files.load().unwrap();
}

#[test]
fn what_is_amiss_with_certificates_that_can_be_read_is_found() {
    let (dir, authority) = directory();
    let files = TlsFiles::in_dir(dir.path(), "node");
    let faults = || Tls::open(files.clone(), None).unwrap().faults(NOW);
    let key = dir.path().join("node-key.pem");
    #[allow(clippy::disallowed_methods, reason = "a test opens a key to others, and closes it")]
    let mode = |mode| std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o600);
    assert_eq!(faults(), Faults::default());
    mode(0o640);
    assert_eq!(faults().keys.len(), 1);
    assert!(faults().keys[0].ends_with(&format!("(mode 640); chmod 600 {}", key.display())));

    put(dir.path(), "node", &authority.issue(&client("ada"), NOW, 30).unwrap());
    assert!(faults().served[0].contains("names no host"), "{:?}", faults());
    assert_eq!(faults().dialed, Vec::<String>::new());

    put(dir.path(), "node", &authority.issue(&node("n1"), Timestamp(NOW.0 - 9 * DAY), 3).unwrap());
    for found in [faults().served, faults().dialed] {
        assert!(found.len() == 1 && found[0].ends_with("has expired"), "{found:?}");
    }
    let (other, _) = Authority::new("another CA", NOW, 30).unwrap();
    put(dir.path(), "node", &other.issue(&node("n1"), NOW, 30).unwrap());
    assert!(faults().served[0].contains("a CA that is not in"), "{:?}", faults());
}

#[test]
fn what_a_node_shows_is_judged_as_others_with_its_settings_would() {
    let dir = tempfile::tempdir().unwrap();
    let ((servers, servers_ca), (nodes, nodes_ca)) = (
        Authority::new("servers", NOW, 30).unwrap(),
        Authority::new("clients and nodes", NOW, 30).unwrap(),
    );
    write(dir.path(), "servers.pem", &servers_ca.certificate);
    write(dir.path(), "nodes.pem", &nodes_ca.certificate);
    put(dir.path(), "served", &servers.issue(&node("n1"), NOW, 30).unwrap());
    put(dir.path(), "dialed", &nodes.issue(&node("n1"), NOW, 30).unwrap());
    let faults = |served_ca: &str, dialed_ca: &str| {
        let files = |who: &str, ca: &str| {
            let ca = dir.path().join(ca);
            TlsFiles { ca, crl: None, ..TlsFiles::in_dir(dir.path(), who) }
        };
        let tls = Tls::open(files("served", served_ca), Some(files("dialed", dialed_ca))).unwrap();
        let Faults { served, dialed, .. } = tls.faults(NOW);
        (served.len(), dialed.len())
    };
    assert_eq!(faults("nodes.pem", "servers.pem"), (0, 0));
    assert_eq!(faults("servers.pem", "nodes.pem"), (1, 1), "no two of these would connect");
    assert_eq!(faults("nodes.pem", "nodes.pem"), (1, 0));
}

#[test]
fn a_wildcard_names_hosts() {
    let (dir, authority) = directory();
    let hosts = vec![Host::Name("*.example.org".into())];
    let wanted = Wanted::Node { name: "n1".into(), hosts, also_client: false };
    put(dir.path(), "node", &authority.issue(&wanted, NOW, 30).unwrap());
    let tls = Tls::open(TlsFiles::in_dir(dir.path(), "node"), None).unwrap();
    assert_eq!(tls.faults(NOW).served, Vec::<String>::new());
    let late = Timestamp(NOW.0 + 40 * DAY);
    assert!(tls.faults(late).served[0].ends_with("has expired"), "{:?}", tls.faults(late));
}

#[test]
fn a_list_goes_with_its_ca_and_that_of_one_that_stands_nowhere_with_the_last() {
    let (dir, authority) = directory();
    let path = dir.path().join("x.pem");
    let revoked_by = |authority: &Authority| {
        let own = authority.issue(&client("ada"), NOW, 30).unwrap();
        authority.revoke(&[], &[(&path, own.certificate.as_bytes())], NOW).unwrap().0
    };
    let (intermediate, _) = Authority::new("between", NOW, 30).unwrap();
    let own = revoked_by(&authority);
    write(dir.path(), "crl.pem", &format!("{own}{}", revoked_by(&intermediate)));
    let tls = Tls::open(TlsFiles::in_dir(dir.path(), "node"), None).unwrap();
    write(dir.path(), "crl.pem", &own);
    let gone = tls.reload(false).unwrap_err().to_string();
    assert!(gone.contains("the list of CN=between") && gone.contains("is gone"), "{gone}");

    let (next, ca) = Authority::new("the next CA", NOW, 30).unwrap();
    write(dir.path(), "ca.pem", &ca.certificate);
    put(dir.path(), "node", &next.issue(&node("n1"), NOW, 30).unwrap());
    #[allow(clippy::disallowed_methods, reason = "a test takes a list away")]
    std::fs::remove_file(dir.path().join("crl.pem")).unwrap();
    assert_eq!(tls.reload(false).unwrap(), Reloaded::Changed, "nobody of before is let in");
    let of_before = chain(&authority.issue(&client("bob"), NOW, 30).unwrap());
    assert!(tls.now().lets_in(&of_before, NOW).is_err());
}

#[test]
fn a_lists_number_counts_whole() {
    let listed = |number: &[u8]| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let issuer = rcgen::Issuer::new(params, key);
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2027, 1, 1),
            crl_number: rcgen::SerialNumber::from_slice(number),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        revoked_in(list.signed_by(&issuer).unwrap().der()).unwrap().number
    };
    assert_eq!(listed(&[7]), 7);
    assert_eq!(listed(&[1, 0, 0, 0, 0, 0, 0, 0, 2]), (1 << 64) + 2);
    assert_eq!(listed(&[0x7f; 20]), u128::MAX, "more than counts");
}

#[test]
fn a_certificate_is_good_between_two_moments_and_for_one_side_of_a_connection() {
    let (dir, authority) = directory();
    let tls = Tls::open(TlsFiles::in_dir(dir.path(), "node"), None).unwrap();
    let short = chain(&authority.issue(&client("ada"), NOW, 1).unwrap());
    for (at, expected) in [(NOW.0 + 2 * DAY, "has expired"), (NOW.0 - DAY, "is not valid yet")] {
        let refused = tls.now().lets_in(&short, Timestamp(at)).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
    assert!(tls.now().lets_in(&[], NOW).is_err());
    let server_only = {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let (dir, key) = (dir.path(), KeyPair::generate().unwrap());
        let (_, ca) = Authority::new("x", NOW, 30).unwrap();
        let issuer_key = KeyPair::from_pem(&ca.key).unwrap();
        write(dir, "ca.pem", &ca.certificate);
        let issuer = rcgen::Issuer::from_ca_cert_pem(&ca.certificate, issuer_key).unwrap();
        put(dir, "node", &{
            let own = Authority::read(
                (Path::new("ca"), ca.certificate.as_bytes()),
                (Path::new("key"), ca.key.as_bytes()),
            );
            own.unwrap().issue(&node("n1"), NOW, 30).unwrap()
        });
        vec![params.signed_by(&key, &issuer).unwrap().der().clone()]
    };
    tls.reload(false).unwrap();
    let refused = tls.now().lets_in(&server_only, NOW).unwrap_err();
    assert!(refused.contains("not for this side"), "{refused}");
}

#[test]
fn whoever_looks_for_another_host_hears_of_which_ones_the_certificate_is() {
    let (dir, authority) = directory();
    let tls = Tls::open(TlsFiles::in_dir(dir.path(), "node"), None).unwrap();
    let n2 = chain(&authority.issue(&node("n2"), NOW, 30).unwrap());
    let trusts =
        |host: &str| tls.now().trusts(&n2, &host.to_owned().try_into().unwrap(), unix_time(NOW));
    trusts("localhost").unwrap();
    assert_eq!(
        trusts("node2").unwrap_err(),
        "its certificate is not for node2 but for localhost, 127.0.0.1"
    );
}

#[test]
fn a_node_looks_for_a_node_and_for_its_name() {
    let (dir, authority) = directory();
    let tls = Tls::open(TlsFiles::in_dir(dir.path(), "node"), None).unwrap();
    let n2 = chain(&authority.issue(&node("n2"), NOW, 30).unwrap());
    let ada = chain(&authority.issue(&client("ada"), NOW, 30).unwrap());
    let named = |name: &str| ExpectedServer::NodeNamed(name.into());
    let check = |expected, shown: &[_]| tls.client().expecting(expected).check(Some(shown));
    check(ExpectedServer::Node, &n2).unwrap();
    check(named("n2"), &n2).unwrap();
    check(ExpectedServer::Any, &ada).unwrap();
    let wrong = check(named("n3"), &n2).unwrap_err();
    assert!(wrong.contains("node n2") && wrong.contains("n3 was looked for"), "{wrong}");
    assert!(check(ExpectedServer::Node, &ada).unwrap_err().contains("not a node's"));
    assert!(tls.client().expecting(ExpectedServer::Node).check(None).is_err());
}

#[test]
fn names_that_could_be_read_as_something_else_are_not_given() {
    let (_, authority) = directory();
    for name in ["", "a/b", "peer/x", "a b", "a\n", "ä", "..", &"x".repeat(65)] {
        assert!(
            matches!(authority.issue(&client(name), NOW, 1), Err(IssueError::Name(_))),
            "{name}"
        );
    }
    assert_eq!("[::1]".parse::<Host>(), Ok(Host::Address("::1".parse().unwrap())));
    assert!("a:1".parse::<Host>().is_err() && "".parse::<Host>().is_err());
}
