//! A node that has ended: what it left behind, and its next start.

use super::builder::Kept;
use super::leaks::{Leak, Remains};
use super::node::TestNode;
use super::story;
use super::wait::{eventually, until_or};
use crate::log::disk::SimDisk;
use crate::node::NodeError;
use std::path::Path;

/// A node that has ended. Its directory, or its disk, is still there.
#[derive(Debug)]
pub struct Stopped {
    pub(super) kept: Option<Kept>,
    pub(super) remains: Remains,
}

impl Stopped {
    /// What it left behind in this process: actors, threads, files, sockets. Waits a while for the
    /// last of it to go.
    pub fn leaks(&self) -> Vec<Leak> {
        let patience = self.kept().patience;
        let gone = eventually(patience, || self.remains.look().is_empty().then_some(()));
        if gone.is_some() { Vec::new() } else { self.remains.look() }
    }

    /// Waits until no thread of its shard or its log is left: they would work beside those of its
    /// next life, as those of a process that was killed cannot.
    pub(super) fn await_threads(&self) {
        let find = || self.remains.threads().is_empty().then_some(());
        until_or(self.kept().patience, find, || {
            let left = self.remains.threads();
            let told: String = left.iter().map(|leak| format!("  {leak}\n")).collect();
            format!("the threads of a node that counts as killed to end:\n{told}")
        });
    }

    /// Checks that it left nothing behind.
    ///
    /// # Panics
    /// When it did; the text tells what.
    pub fn assert_nothing_left(&self) {
        let leaks = self.leaks();
        let told: String = leaks.iter().map(|leak| format!("  {leak}\n")).collect();
        assert!(leaks.is_empty(), "the node stopped and left behind:\n{told}");
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.kept().settings.data_dir
    }

    /// Puts another disk in its place, as one that was damaged meanwhile.
    pub fn sim_disk(&mut self, disk: SimDisk) {
        if let Some(kept) = &mut self.kept {
            kept.sim_disk = Some(disk);
        }
    }

    /// Starts it again, on other ports, from what is stored.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(self) -> TestNode {
        self.try_start().unwrap_or_else(|error| panic!("the node does not start: {error}"))
    }

    /// As [`Stopped::start`].
    ///
    /// # Errors
    /// Why it does not start.
    pub fn try_start(mut self) -> Result<TestNode, NodeError> {
        self.kept.take().expect("started once").start()
    }

    fn kept(&self) -> &Kept {
        self.kept.as_ref().expect("a node that is started again is consumed")
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        story::tell_if_panicking();
    }
}
