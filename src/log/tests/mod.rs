//! The log on a disk that fails: what is promised, tried against what can go wrong.
//!
//! The rungs are those of the reliability ladder: A1 torn tails, A2 flipped bits, A3 blocks out
//! of place, A6 failing calls, A7 full disks, A8 short writes, A9 bad reads, and crash points. Each has a negative
//! control: a check that is made to miss its fault must be noticed.

mod basics;
mod by_index;
mod crash;
mod damage;
mod faults;
mod format;
mod harness;
mod model;
mod reset;
mod short_writes;
