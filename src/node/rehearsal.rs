//! A start without consequences: what a start reads is read, by the same functions and in the same
//! order, and nothing is changed.

use super::certificates::Certificates;
use super::partition::log_options;
use super::{Node, NodeError, access, has_controller};
use crate::log::disk::RealDisk;
use crate::model::{Clock, SystemClock};
use crate::ops::data_dir::inspect;
use crate::ops::settings::Settings;
use slog::{Logger, o};
use std::sync::Arc;

impl Node {
    /// Finds what would keep a node from starting with these settings, short of opening its ports, and
    /// warns of what a start warns of. Returns who would turn away a node that starts all the same, or be
    /// turned away by it, for certificates that nobody takes or want of files of access control, with
    /// the reasons.
    /// Blocks.
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub fn rehearse(settings: &Settings, logger: &Logger) -> Result<Vec<String>, NodeError> {
        log_options(&settings.log).validate()?;
        let cluster = inspect(&settings.data_dir)?;
        has_controller(&RealDisk, &settings.data_dir, cluster.as_ref())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let refused = Certificates::rehearse(settings, &clock, logger.new(o!("actor" => "node")))?;
        let denied = access::rehearse(settings, &logger.new(o!("actor" => "node/access")));
        Ok(refused.into_iter().chain(denied).collect())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write files of access control")]
mod tests {
    use super::*;
    use crate::access::{KeyKind, Secret};
    use crate::model::NodeId;
    use crate::ops::data_dir::{Cluster, DataDir};
    use std::fs;
    use std::path::Path;

    fn rehearse(settings: &Settings) -> Result<Vec<String>, NodeError> {
        Node::rehearse(settings, &Logger::root(slog::Discard, o!()))
    }

    fn below(directory: &Path) -> Settings {
        Settings { data_dir: directory.join("data"), ..Settings::default() }
    }

    #[test]
    fn certificates_that_are_not_there_keep_a_node_from_starting() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = below(directory.path());
        assert_eq!(rehearse(&settings).unwrap(), Vec::<String>::new());
        settings.tls.dir = Some(directory.path().join("nowhere"));
        let refused = rehearse(&settings).unwrap_err();
        assert!(matches!(refused, NodeError::Tls(_)), "{refused}");
        assert!(refused.to_string().contains("nowhere/ca.pem"), "{refused}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something was made");
    }

    #[test]
    fn files_of_access_control_are_read_and_each_that_is_amiss_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let mut settings = below(directory.path());
        settings.access.model_file = Some(file("model.conf"));
        settings.access.policy_file = Some(file("policy.csv"));
        settings.access.token_keys_file = Some(file("keys.json"));
        let told = rehearse(&settings).unwrap();
        assert!(told[0].starts_with("everything is denied: ") && told[0].contains("model.conf"));
        assert!(told[1].starts_with("no token is taken: ") && told[1].contains("keys.json"));
        assert_eq!(told.len(), 2);

        let keys = Secret::generate(KeyKind::EdDsa, "k1").unwrap().for_nodes();
        fs::write(file("keys.json"), &keys).unwrap();
        let model = "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n\
            [policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\n\
            m = r.sub == p.sub && r.obj == p.obj && r.act == p.act\n";
        fs::write(file("model.conf"), model).unwrap();
        let told = rehearse(&settings).unwrap();
        assert!(told.len() == 1 && told[0].contains("policy.csv"), "{told:?}");
        fs::write(file("policy.csv"), "p, root, *, produce\n").unwrap();
        assert_eq!(rehearse(&settings).unwrap(), Vec::<String>::new());

        fs::write(file("keys.json"), &keys[..keys.len() - 3]).unwrap();
        let told = rehearse(&settings).unwrap();
        assert!(told.len() == 1 && told[0].contains("keys.json"), "{told:?}");
    }

    #[test]
    fn a_member_without_its_controller_does_not_start() {
        let directory = tempfile::tempdir().unwrap();
        let settings = below(directory.path());
        let data_dir = DataDir::open(&settings.data_dir).unwrap();
        let cluster = Cluster { cluster_id: "c1".into(), node: NodeId(1) };
        data_dir.set_cluster(&cluster).unwrap();
        drop(data_dir);
        let refused = rehearse(&settings).unwrap_err();
        assert!(refused.to_string().contains("controller is gone"), "{refused}");
        fs::create_dir(settings.data_dir.join("controller")).unwrap();
        rehearse(&settings).unwrap();
    }
}
