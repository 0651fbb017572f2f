//! The closed list of reasons.

/// Why something is as it is; in the order of how bad it is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It left service until somebody releases it.
    Quarantined,
    /// It makes no progress inside one message.
    Hung,
    /// It crashed and comes back.
    Restarting,
    /// It has ended.
    Stopped,
    /// It is on its way out.
    Stopping,
    /// The disk has no room for writes.
    DiskFull,
    /// The disk takes long to store what was written.
    SlowFlush,
    /// It takes no more requests until some of those under way are answered.
    Overloaded,
    /// A thread of an earlier life has not left the disk.
    Fenced,
    /// It reads its files after a start.
    Recovering,
    /// It was not started yet.
    Starting,
    /// It waits to be let into a cluster.
    Joining,
    /// A reader's client does not take what it asked for.
    ConsumerStuck,
    /// A client sends what makes no sense.
    BadClient,
    /// It works on a message.
    Handling,
    /// It waits for a flush that is under way.
    Flushing,
    /// It waits a moment for other producers.
    Gathering,
    /// It removes old segments, prepares blocks or writes a checkpoint.
    Housekeeping,
    /// It has nothing to do, and takes requests.
    Idle,
    /// It serves requests.
    Serving,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Quarantined,
        Self::Hung,
        Self::Restarting,
        Self::Stopped,
        Self::Stopping,
        Self::DiskFull,
        Self::SlowFlush,
        Self::Overloaded,
        Self::Fenced,
        Self::Recovering,
        Self::Starting,
        Self::Joining,
        Self::ConsumerStuck,
        Self::BadClient,
        Self::Handling,
        Self::Flushing,
        Self::Gathering,
        Self::Housekeeping,
        Self::Idle,
        Self::Serving,
    ];

    /// The code by which programs know it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Hung => "hung",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Stopping => "stopping",
            Self::DiskFull => "disk_full",
            Self::SlowFlush => "slow_flush",
            Self::Overloaded => "overloaded",
            Self::Fenced => "fenced",
            Self::Recovering => "recovering",
            Self::Starting => "starting",
            Self::Joining => "joining",
            Self::ConsumerStuck => "consumer_stuck",
            Self::BadClient => "bad_client",
            Self::Handling => "handling",
            Self::Flushing => "flushing",
            Self::Gathering => "gathering",
            Self::Housekeeping => "housekeeping",
            Self::Idle => "idle",
            Self::Serving => "serving",
        }
    }

    /// Whether nobody needs to do anything about it.
    pub const fn is_well(self) -> bool {
        matches!(
            self,
            Self::Handling
                | Self::Flushing
                | Self::Gathering
                | Self::Housekeeping
                | Self::Idle
                | Self::Serving
        )
    }
}
