// Who may do what, on every port and in every state of a node.

mod audit;
mod certificates;
mod cluster;
mod held;
mod node;
mod ports;
pub mod raw;
mod stale;
mod switch;
mod tokens;

use duramen::access::{KeyKind, Secret, TokenTerms, new_token};
use duramen::model::{Clock, SystemClock};
use duramen::ops::settings::Settings;
use duramen::testing::{block_on, until};
use duramen::wire::client::{
    Admin, Bearer, Client, ClientError, ClientOptions, Consistency, FetchOptions, Position,
};
use duramen::wire::pb::duramen::v1 as pb;
use pb::change_access_request::Change;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tonic::Code;

/// Reads from the start, and waits for more.
const FOLLOW: FetchOptions = FetchOptions {
    position: Position::Start,
    chunk_bytes_max: 0,
    records_max: None,
    follow: true,
    consistency: Consistency::Committed,
};

/// Somebody who issues tokens, and what nodes know of them.
pub struct Issuer {
    directory: TempDir,
    secret: Secret,
}

impl Issuer {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secret = Secret::generate(KeyKind::EdDsa, "k1").unwrap();
        std::fs::write(directory.path().join("keys.json"), secret.for_nodes()).unwrap();
        Self { directory, secret }
    }

    pub fn keys_file(&self) -> PathBuf {
        self.directory.path().join("keys.json")
    }

    pub fn token_for(&self, subject: &str, lifetime: Duration) -> String {
        let now = SystemClock::new().wall();
        new_token(&self.secret, subject, &TokenTerms::default(), now, lifetime).unwrap()
    }

    pub fn token(&self, subject: &str) -> String {
        self.token_for(subject, Duration::from_secs(3600))
    }

    /// Settings of a node that takes these tokens, and lets `root` do everything.
    pub fn trusted(&self) -> impl Fn(&mut Settings) + Send + 'static {
        let file = self.keys_file();
        move |settings| {
            settings.access.token_keys_file = Some(file.clone());
            settings.access.admins = vec!["root".into()];
        }
    }

    pub async fn connect(&self, address: SocketAddr, who: &str) -> Result<Client, ClientError> {
        let token = Bearer::new(&self.token(who)).unwrap();
        let options = ClientOptions { token, ..ClientOptions::default() };
        Client::connect(&address.to_string(), options).await
    }

    pub fn client(&self, address: SocketAddr, who: &str) -> Client {
        block_on(self.connect(address, who)).expect("the node answers")
    }

    pub fn admin(&self, address: SocketAddr) -> Admin {
        self.client(address, "root").admin()
    }

    pub fn change(&self, address: SocketAddr, change: Change) -> pb::AccessState {
        self::change(&mut self.admin(address), change)
    }

    /// Puts this policy in force, with `root` as its administrator.
    pub fn enforce(&self, address: SocketAddr, policy: &str) {
        self.change(address, Change::Load(format!("p, root, *, *\n{policy}")));
        self.change(address, Change::Switch(true));
    }
}

/// Has somebody change the policy who may, once there is a cluster that has one.
pub fn change(admin: &mut Admin, change: Change) -> pb::AccessState {
    let request = pb::ChangeAccessRequest { change: Some(change) };
    let mut state = None;
    until("there is a cluster, and root may change its policy", || {
        let changed = block_on(admin.change_access(request.clone()));
        let is_early = matches!(code(&changed), Some(Code::FailedPrecondition | Code::Unavailable));
        assert!(changed.is_ok() || is_early, "{changed:?}");
        state = changed.ok();
        state.is_some()
    });
    state.unwrap()
}

/// How a call was refused.
pub fn code<T>(outcome: &Result<T, ClientError>) -> Option<Code> {
    match outcome {
        Ok(_) => None,
        Err(ClientError::Refused(refusal)) => Some(refusal.code),
        Err(_) => Some(Code::Unavailable),
    }
}

/// A record batch as clients encode it.
pub fn batch(value: &str) -> bytes::Bytes {
    use duramen::log::batch::BatchBuilder;
    use duramen::model::{Record, Timestamp};
    let record = Record::of_value(value.as_bytes().to_vec(), Timestamp(1_700_000_000_000));
    let mut builder = BatchBuilder::new();
    builder.push(&record).unwrap();
    builder.finish().unwrap().into_bytes()
}
