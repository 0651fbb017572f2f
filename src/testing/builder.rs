//! What a node under test is to be like, and what of it outlives a life.

use super::chance::seed;
use super::control::ControlThread;
use super::machine::Machine;
use super::node::{Life, TestNode};
use super::story::Story;
use super::wait::{PATIENCE, until_or};
use crate::actors::partition::{PartitionApi, PartitionState};
use crate::log::disk::{Disk, RealDisk, SimDisk};
use crate::node::{NodeError, Surroundings};
use crate::ops::settings::Settings;
use slog::{Logger, o};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// What a node under test is to be like.
#[derive(Debug)]
pub struct TestNodeBuilder {
    settings: Settings,
    sim_disk: Option<SimDisk>,
    logger: Logger,
    seed: u64,
    patience: Duration,
}

impl TestNodeBuilder {
    pub(super) fn new() -> Self {
        let mut settings = Settings::default();
        settings.rpc.addr = (Ipv4Addr::LOCALHOST, 0).into();
        settings.http.addr = (Ipv4Addr::LOCALHOST, 0).into();
        settings.gossip.addr = (Ipv4Addr::LOCALHOST, 0).into();
        settings.shutdown.grace = Duration::from_secs(2);
        Self {
            settings,
            sim_disk: None,
            logger: Logger::root(slog::Discard, o!()),
            seed: seed(),
            patience: PATIENCE,
        }
    }

    /// Changes its settings. Ports and the data directory are the harness's to choose.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Keeps the log on this simulated disk, not on the machine's.
    #[must_use]
    pub fn sim_disk(self, disk: &SimDisk) -> Self {
        Self { sim_disk: Some(disk.clone()), ..self }
    }

    /// Sends its diagnostics there; by default they are discarded.
    #[must_use]
    pub fn logger(self, logger: Logger) -> Self {
        Self { logger, ..self }
    }

    /// Decides what is left to chance. By default [`seed`] does.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// How long conditions may take to come true: half a minute by default.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Starts the node and waits until recovery is over, however that ended.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(self) -> TestNode {
        self.try_start().unwrap_or_else(|error| panic!("the node does not start: {error}"))
    }

    /// As [`TestNodeBuilder::start`].
    ///
    /// # Errors
    /// Why the node does not start.
    pub fn try_start(self) -> Result<TestNode, NodeError> {
        let Self { mut settings, sim_disk, logger, seed, patience } = self;
        let directory = TempDir::with_prefix("duramen-test-")
            .expect("a test needs a directory for temporary files");
        settings.data_dir = directory.path().join("data");
        let story = Story::begin(seed);
        Kept { _directory: directory, settings, sim_disk, logger, seed, patience, story }.start()
    }
}

/// What outlives the lives of a node under test.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) _directory: TempDir,
    pub(super) settings: Settings,
    pub(super) sim_disk: Option<SimDisk>,
    pub(super) logger: Logger,
    pub(super) seed: u64,
    pub(super) patience: Duration,
    pub(super) story: Arc<Story>,
}

impl Kept {
    pub(super) fn start(self) -> Result<TestNode, NodeError> {
        let disk: Arc<dyn Disk> = match &self.sim_disk {
            Some(disk) => Arc::new(disk.clone()),
            None => Arc::new(RealDisk),
        };
        let machine = Machine::new(disk);
        let surroundings = Surroundings {
            disk: Arc::new(machine.clone()),
            seed: Some(self.seed),
            ..Surroundings::of(self.logger.clone())
        };
        let (thread, handles) = ControlThread::start(self.settings.clone(), surroundings)?;
        self.story.lives(&handles.hub);
        let node = TestNode { live: Some(Life { thread, handles, machine }), kept: Some(self) };
        // However little patience the test has: that is for what it asks itself.
        let is_over = || {
            let state = node.log_if_here().map(|log| log.describe().state);
            let is_under_way =
                matches!(state, Some(PartitionState::Recovering | PartitionState::Restarting));
            (!is_under_way).then_some(())
        };
        until_or(PATIENCE, is_over, || format!("recovery is over\n{}", node.sight()));
        Ok(node)
    }
}
