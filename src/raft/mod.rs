//! Partition Raft.
