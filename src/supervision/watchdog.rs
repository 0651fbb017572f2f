//! Who hangs: the judgement on one life from what can be seen outside, and a plain thread that
//! watches the thread which does the judging.
//!
//! A life is asked at intervals to give a sign, through its own context. It may be slow to: its
//! mailbox is emptied first, and so are those of its neighbours. So it counts as hung only when
//! over the whole time it finished no request either, and either it sits inside one call, or it
//! was run and could not answer (it waits on itself), or its whole thread stood still.

use super::life::Pulse;
use slog::Logger;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Looks that must find no progress before a life counts as hung. The judge itself may have been
/// held up; time alone proves nothing.
pub(super) const LOOKS: u32 = 4;

/// A life that was not run since its last sign is asked at every so manieth look only, its neighbours
/// at others: nothing can hold it up but its thread, which another one tells of.
const IDLE_LOOKS: u64 = 8;
/// How often a life is run to give a sign.
const SIGN_POLLS: u64 = 2;

/// What can be seen of a life at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// The last sign that it was asked for and gave.
    pub(super) answered: u64,
    /// Requests finished, or progress claimed.
    pub(super) finished: u64,
    /// How often its task was run.
    pub(super) polls: u64,
    /// Whether it is being run just now.
    pub(super) in_poll: bool,
    /// How often anything supervised was run on its thread.
    pub(super) thread_polls: u64,
}

/// The judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ask for the next sign, with this number.
    Ask(u64),
    /// Wait on.
    Patience,
    /// Its thread runs, it does not: aborting it is enough.
    Stuck(Duration),
    /// Its thread stands still.
    Hung(Duration),
}

/// A value that should change, and since when it has not.
#[derive(Debug)]
struct Still<T> {
    value: Option<T>,
    since: Duration,
    looks: u32,
}

impl<T: PartialEq> Still<T> {
    const UNSEEN: Self = Self { value: None, since: Duration::ZERO, looks: 0 };

    /// Returns for how long, and over how many looks, the value has been what it is.
    fn look(&mut self, value: T, now: Duration) -> (Duration, u32) {
        if self.value.as_ref() == Some(&value) {
            self.looks += 1;
        } else {
            *self = Self { value: Some(value), since: now, looks: 0 };
        }
        (now.saturating_sub(self.since), self.looks)
    }
}

/// The watch over one life.
#[derive(Debug)]
pub(super) struct Watch {
    hang_after: Duration,
    asked: u64,
    polls_when_asked: u64,
    /// Looks, up to the one at which it is asked even if it is idle.
    idle_looks: u64,
    sign: Still<(u64, u64)>,
    call: Still<(bool, u64)>,
    thread: Still<u64>,
}

impl Watch {
    /// `id` spreads the looks at which idle lives are asked.
    pub(super) fn new(hang_after: Duration, id: u64) -> Self {
        Self {
            hang_after,
            asked: 0,
            polls_when_asked: 0,
            idle_looks: id % IDLE_LOOKS,
            sign: Still::UNSEEN,
            call: Still::UNSEEN,
            thread: Still::UNSEEN,
        }
    }

    /// How long to wait between looks.
    pub(super) fn interval(&self) -> Duration {
        (self.hang_after / LOOKS).max(Duration::from_millis(1))
    }

    /// Looks at the life.
    pub(super) fn look(&mut self, reading: Reading, now: Duration) -> Verdict {
        let sign = self.sign.look((reading.answered, reading.finished), now);
        let call = self.call.look((reading.in_poll, reading.polls), now);
        let thread = self.thread.look(reading.thread_polls, now);
        if reading.answered >= self.asked {
            let polls = reading.polls.saturating_sub(self.polls_when_asked);
            let is_idle = self.asked > 0 && !reading.in_poll && polls <= SIGN_POLLS;
            self.idle_looks += 1;
            if is_idle && self.idle_looks < IDLE_LOOKS {
                return Verdict::Patience;
            }
            self.idle_looks %= IDLE_LOOKS;
            self.asked = reading.answered + 1;
            self.polls_when_asked = reading.polls;
            // The time to answer begins now, however long nothing was asked.
            self.sign = Still { since: now, looks: 0, value: self.sign.value.take() };
            return Verdict::Ask(self.asked);
        }
        let too_long = |(still, looks): (Duration, u32)| looks >= LOOKS && still >= self.hang_after;
        if !too_long(sign) {
            Verdict::Patience
        } else if (reading.in_poll && too_long(call)) || too_long(thread) {
            Verdict::Hung(sign.0)
        } else if !reading.in_poll && reading.polls > self.polls_when_asked {
            Verdict::Stuck(sign.0)
        } else {
            // Its neighbours keep the thread busy; whichever of them hangs is judged itself.
            Verdict::Patience
        }
    }
}

impl Reading {
    pub(super) fn take(pulse: &Pulse, finished: u64) -> Self {
        Self {
            answered: pulse.answered.load(Ordering::Acquire),
            finished,
            polls: pulse.polls.load(Ordering::Acquire),
            in_poll: pulse.in_poll.load(Ordering::Acquire),
            thread_polls: pulse.thread_polls.load(Ordering::Acquire),
        }
    }
}

/// How long the control thread may be silent before it is reported.
const CONTROL_SILENT_MAX: Duration = Duration::from_secs(10);

/// How often the control thread gives a sign.
pub(super) const CONTROL_BEAT: Duration = Duration::from_secs(1);

/// Watches the control thread from a thread of its own. Can only report: what hangs there takes
/// the supervisors with it, and only the process's own supervisor can help.
pub(super) struct ControlWatch {
    beats: Arc<AtomicU64>,
    /// Ends the thread when dropped.
    _end: SyncSender<()>,
}

impl ControlWatch {
    pub(super) fn start(logger: Logger) -> Self {
        let beats = Arc::new(AtomicU64::new(0));
        let (end, ended) = sync_channel::<()>(0);
        let seen = Arc::clone(&beats);
        // A node that is short of threads still runs; it is merely not watched.
        drop(std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let mut last = 0;
            while ended.recv_timeout(CONTROL_SILENT_MAX) == Err(RecvTimeoutError::Timeout) {
                let beats = seen.load(Ordering::Acquire);
                if beats == last {
                    slog::crit!(logger, "the control thread hangs; health and restarts wait for it";
                        "silent_ms_min" => CONTROL_SILENT_MAX.as_millis());
                }
                last = beats;
            }
        }));
        Self { beats, _end: end }
    }

    /// Alive as long as the thread is.
    pub(super) fn trace(&self) -> Weak<AtomicU64> {
        Arc::downgrade(&self.beats)
    }

    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Reading =
        Reading { answered: 0, finished: 0, polls: 10, in_poll: false, thread_polls: 50 };

    /// Looks at the same reading until there is a verdict, at the watch's own interval.
    fn judge(reading: Reading) -> Verdict {
        let mut watch = Watch::new(SILENT, 0);
        assert_eq!(watch.look(WELL, Duration::ZERO), Verdict::Ask(1));
        for look in 1..=LOOKS {
            let verdict = watch.look(reading, watch.interval() * look);
            assert!(look == LOOKS || verdict == Verdict::Patience, "too early: {verdict:?}");
        }
        watch.look(reading, watch.interval() * (LOOKS + 1))
    }

    const SILENT: Duration = Duration::from_secs(4);
    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn a_life_that_gives_its_sign_is_asked_for_the_next() {
        let mut watch = Watch::new(SILENT, 0);
        for sign in 0..20 {
            let reading = Reading { answered: sign, polls: 10 + 5 * sign, ..WELL };
            let now = watch.interval() * u32::try_from(sign).unwrap();
            assert_eq!(watch.look(reading, now), Verdict::Ask(sign + 1));
        }
    }

    #[test]
    fn an_idle_life_is_asked_now_and_then_and_its_neighbours_at_other_looks() {
        let mut asked = [0; IDLE_LOOKS as usize * 4];
        for id in 0..IDLE_LOOKS {
            let mut watch = Watch::new(SILENT, id);
            let mut reading = WELL;
            for (look, asked) in (1..).zip(&mut asked) {
                if let Verdict::Ask(number) = watch.look(reading, watch.interval() * look) {
                    (reading.answered, reading.polls) = (number, reading.polls + 1);
                    *asked += 1;
                }
            }
        }
        assert_eq!(asked[0], IDLE_LOOKS, "each is asked as it begins");
        let settled = &asked[IDLE_LOOKS as usize..];
        assert!(settled.iter().all(|count| *count == 1), "{asked:?}");
    }

    #[test]
    fn a_life_that_enters_a_call_and_stays_there_is_hung() {
        let inside = Reading { in_poll: true, polls: 11, thread_polls: 51, ..WELL };
        assert_eq!(judge(inside), Verdict::Hung(LONG));
    }

    #[test]
    fn a_thread_that_stands_still_is_hung_whoever_holds_it() {
        assert_eq!(judge(WELL), Verdict::Hung(LONG));
    }

    #[test]
    fn a_life_that_runs_but_cannot_answer_is_stuck_and_its_thread_is_not() {
        let mut watch = Watch::new(SILENT, 0);
        watch.look(WELL, Duration::ZERO);
        let verdicts: Vec<_> = (1..=5)
            .map(|look| {
                let polls = WELL.polls + u64::from(look);
                let reading = Reading { polls, thread_polls: polls + 40, ..WELL };
                watch.look(reading, watch.interval() * look)
            })
            .collect();
        assert_eq!(verdicts[4], Verdict::Stuck(LONG), "{verdicts:?}");
    }

    #[test]
    fn a_life_starved_by_its_neighbours_is_not_blamed() {
        let mut watch = Watch::new(SILENT, 0);
        watch.look(WELL, Duration::ZERO);
        for look in 1..40 {
            let reading = Reading { thread_polls: 50 + u64::from(look), ..WELL };
            assert_eq!(watch.look(reading, watch.interval() * look), Verdict::Patience);
        }
    }

    #[test]
    fn a_flooded_life_that_finishes_requests_is_not_hung() {
        let mut watch = Watch::new(SILENT, 0);
        watch.look(WELL, Duration::ZERO);
        for look in 1..40 {
            let finished = u64::from(look);
            let busy = Reading { finished, in_poll: true, polls: 11, ..WELL };
            assert_eq!(watch.look(busy, watch.interval() * look), Verdict::Patience);
        }
    }

    #[test]
    fn a_judge_that_was_held_up_itself_condemns_nobody_at_once() {
        let mut watch = Watch::new(SILENT, 0);
        watch.look(WELL, Duration::ZERO);
        assert_eq!(watch.look(WELL, SILENT * 100), Verdict::Patience);
        let well_again = Reading { answered: 1, polls: 20, ..WELL };
        assert_eq!(watch.look(well_again, SILENT * 101), Verdict::Ask(2));
    }
}
