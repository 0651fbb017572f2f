//! The rows of the benchmark: a kind of load and a record size each.

use super::connects;

/// What a user may name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// One producer, one outstanding record
    P1Sync,
    /// 64 producers on connections of their own, one outstanding record each
    P64Sync,
    /// One producer of batches with several outstanding
    P1Pipe,
    /// A reader of everything, in large messages
    CatchUp,
    /// From a producer's send to a follower's receipt
    Tail,
    /// One producer of batches of 1, 10, 100 and 1000 records of 100 bytes: what a record costs the
    /// node that leads. Runs only where it is named
    LeaderCost,
    /// Clients that connect, ask once and go, and what they do to another. Runs only where it is
    /// named
    Connect,
}

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Producers that wait for each record's acknowledgement.
    LockStep { connections: usize, unary: bool },
    /// A producer of whole batches.
    Pipe { batch_records: usize, outstanding: usize },
    /// A reader.
    CatchUp { message_bytes: usize },
    /// A producer and a follower, one record at a time.
    Tail,
    /// Clients that connect, ask once and go, so many at a time.
    Visits { at_once: usize },
    /// One producer in lock step while crowds come, greet and go.
    Beside,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    pub load: Load,
    pub record_bytes: usize,
}

impl Case {
    /// What a guarded node is to reach of the same load's rate without guards.
    pub fn floor(&self) -> Option<f64> {
        match self.load {
            Load::Pipe { .. } | Load::CatchUp { .. } => Some(0.7),
            Load::LockStep { connections, .. } if connections > 1 => Some(0.9),
            _ => None,
        }
    }

    /// The rows that the arguments ask for.
    pub fn of(modes: &[Mode], size: Option<u32>, unary: bool, connections: u32) -> Vec<Self> {
        let all = [Mode::P1Sync, Mode::P64Sync, Mode::P1Pipe, Mode::CatchUp, Mode::Tail];
        let modes = if modes.is_empty() { &all[..] } else { modes };
        let sizes = size.map_or_else(|| vec![100, 1024], |size| vec![size as usize]);
        let mut cases = Vec::new();
        for mode in modes {
            // What varies there is something else.
            let one_size = matches!(mode, Mode::LeaderCost | Mode::Connect);
            let sizes = if one_size { &[100][..] } else { &sizes };
            for bytes in sizes {
                cases.extend(Self::of_mode(*mode, *bytes, unary, connections as usize));
            }
        }
        cases
    }

    fn of_mode(mode: Mode, record_bytes: usize, unary: bool, connections: usize) -> Vec<Self> {
        let case = |name: String, load| Self { name, load, record_bytes };
        let lock_step = |connections| {
            let forms = if unary { &[false, true][..] } else { &[false] };
            let forms = forms.iter().map(move |unary| {
                let form = if *unary { "unary" } else { "stream" };
                let load = Load::LockStep { connections, unary: *unary };
                case(format!("p{connections}-sync {form} {record_bytes} B"), load)
            });
            forms.collect()
        };
        match mode {
            Mode::P1Sync => lock_step(1),
            Mode::P64Sync => lock_step(connections),
            Mode::P1Pipe => {
                // As deep as the acceptance figures: 1000 × 100 B, 4 out; 64 × 1 KiB, 8 out.
                let (batch_records, outstanding) =
                    if record_bytes < 512 { (1000, 4) } else { (64, 8) };
                let name = format!("p1-pipe {batch_records} x {record_bytes} B, {outstanding} out");
                vec![case(name, Load::Pipe { batch_records, outstanding })]
            }
            Mode::CatchUp => [64 << 10, 256 << 10]
                .map(|message_bytes: usize| {
                    let name = format!("catch-up {record_bytes} B, {} KiB", message_bytes >> 10);
                    case(name, Load::CatchUp { message_bytes })
                })
                .into(),
            Mode::LeaderCost => [1, 10, 100, 1000]
                .map(|batch_records: usize| {
                    let outstanding = 8;
                    let name = format!("leader-cost {batch_records} x {record_bytes} B");
                    case(name, Load::Pipe { batch_records, outstanding })
                })
                .into(),
            Mode::Connect => {
                let (crowd, every) = (connects::CROWD, connects::CROWD_EVERY);
                let beside = format!("p1-sync beside {crowd} greetings each {every:?}");
                let visits = Load::Visits { at_once: 8 };
                vec![case("connect, 8 at a time".into(), visits), case(beside, Load::Beside)]
            }
            Mode::Tail => vec![case(format!("tail {record_bytes} B"), Load::Tail)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naming_nothing_runs_every_mode_at_both_sizes() {
        let cases = Case::of(&[], None, false, 64);
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), 12);
        for name in
            ["p1-sync stream 100 B", "p64-sync stream 1024 B", "p1-pipe 1000 x 100 B, 4 out"]
        {
            assert!(names.contains(&name), "{name} is among {names:?}");
        }
    }

    #[test]
    fn the_cost_of_a_record_is_measured_once_for_each_size_of_batch() {
        let cases = Case::of(&[Mode::LeaderCost], None, false, 64);
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        let batches = [1, 10, 100, 1000].map(|records| format!("leader-cost {records} x 100 B"));
        assert_eq!(names, batches);
    }

    #[test]
    fn unary_rows_come_beside_the_stream_rows() {
        let cases = Case::of(&[Mode::P64Sync], Some(100), true, 8);
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["p8-sync stream 100 B", "p8-sync unary 100 B"]);
    }
}
