//! A circuit breaker: after some failures in a row calls fail at once, until a few single trials
//! have shown that the other side is back. [`CircuitBreaker`] is pure; [`Breaker`] shares one and
//! tells of its changes.

use crate::model::Clock;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When a breaker opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open it. Default: 5.
    pub failures_max: u32,
    /// How long it stays open before the first trial. Default: 30 s.
    pub open_for: Duration,
    /// Trials that must succeed, one after another, to close it. Default: 2.
    pub successes_to_close: u32,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures_max: 5, open_for: Duration::from_secs(30), successes_to_close: 2 }
    }
}

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets them through.
    Closed,
    /// Refuses them.
    Open,
    /// Lets one through at a time.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// The breaker let no call through: nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit breaker is open after failures in a row; try again in {retry_after:?}")]
pub struct BreakerOpen {
    /// When a call may be let through; zero: as soon as the trial that is under way has ended.
    pub retry_after: Duration,
}

/// A change of state: from, to.
pub type Turn = (BreakerState, BreakerState);

/// A call that was let through. Its outcome counts only in the state in which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    since_turn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Closed { failures: u32 },
    Open { until: Duration },
    HalfOpen { successes: u32, is_trying: bool },
}

/// The state machine. Times are those of one clock that does not go back.
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    options: BreakerOptions,
    mode: Mode,
    turns: u64,
}

impl CircuitBreaker {
    /// A closed one.
    pub const fn new(options: BreakerOptions) -> Self {
        Self { options, mode: Mode::Closed { failures: 0 }, turns: 0 }
    }

    /// What it does with calls. One that is open and due for a trial is still open.
    pub const fn state(&self) -> BreakerState {
        match self.mode {
            Mode::Closed { .. } => BreakerState::Closed,
            Mode::Open { .. } => BreakerState::Open,
            Mode::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Lets a call through or not, and tells whether that changed the state.
    pub fn admit(&mut self, now: Duration) -> (Result<Admission, BreakerOpen>, Option<Turn>) {
        let mut turn = None;
        match &mut self.mode {
            Mode::Closed { .. } => {}
            Mode::Open { until } if now < *until => {
                return (Err(BreakerOpen { retry_after: *until - now }), None);
            }
            Mode::Open { .. } => {
                turn = self.turn(Mode::HalfOpen { successes: 0, is_trying: true });
            }
            Mode::HalfOpen { is_trying: true, .. } => {
                return (Err(BreakerOpen { retry_after: Duration::ZERO }), None);
            }
            Mode::HalfOpen { is_trying, .. } => *is_trying = true,
        }
        (Ok(Admission { since_turn: self.turns }), turn)
    }

    /// A call that was let through has succeeded.
    pub fn succeeded(&mut self, call: Admission) -> Option<Turn> {
        if call.since_turn != self.turns {
            return None;
        }
        match &mut self.mode {
            Mode::Closed { failures } => *failures = 0,
            Mode::Open { .. } => {}
            Mode::HalfOpen { successes, is_trying } => {
                *is_trying = false;
                *successes += 1;
                if *successes >= self.options.successes_to_close {
                    return self.turn(Mode::Closed { failures: 0 });
                }
            }
        }
        None
    }

    /// A call that was let through has failed.
    pub fn failed(&mut self, call: Admission, now: Duration) -> Option<Turn> {
        if call.since_turn != self.turns {
            return None;
        }
        let open = Mode::Open { until: now + self.options.open_for };
        match &mut self.mode {
            Mode::Closed { failures } => {
                *failures += 1;
                if *failures < self.options.failures_max { None } else { self.turn(open) }
            }
            Mode::Open { .. } => None,
            Mode::HalfOpen { .. } => self.turn(open),
        }
    }

    /// A call that was let through was given up by its caller: it says nothing of the other side.
    pub fn abandoned(&mut self, call: Admission) {
        if call.since_turn == self.turns
            && let Mode::HalfOpen { is_trying, .. } = &mut self.mode
        {
            *is_trying = false;
        }
    }

    fn turn(&mut self, to: Mode) -> Option<Turn> {
        let from = self.state();
        self.mode = to;
        self.turns += 1;
        Some((from, self.state()))
    }
}

type OnChange = Box<dyn Fn(BreakerState, BreakerState) + Send + Sync>;

/// A circuit breaker with a clock. Clones share it.
#[derive(Clone)]
pub struct Breaker(Arc<Shared>);

struct Shared {
    breaker: Mutex<CircuitBreaker>,
    clock: Arc<dyn Clock>,
    on_change: Option<OnChange>,
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Breaker({})", self.state())
    }
}

impl Breaker {
    /// A closed one.
    pub fn new(options: BreakerOptions, clock: Arc<dyn Clock>) -> Self {
        Self::with(options, clock, None)
    }

    /// A closed one that tells of each change of its state: from, to. It may be asked for its state
    /// meanwhile.
    pub fn on_change(
        options: BreakerOptions,
        clock: Arc<dyn Clock>,
        on_change: impl Fn(BreakerState, BreakerState) + Send + Sync + 'static,
    ) -> Self {
        Self::with(options, clock, Some(Box::new(on_change)))
    }

    fn with(options: BreakerOptions, clock: Arc<dyn Clock>, on_change: Option<OnChange>) -> Self {
        let breaker = Mutex::new(CircuitBreaker::new(options));
        Self(Arc::new(Shared { breaker, clock, on_change }))
    }

    /// What it does with calls.
    pub fn state(&self) -> BreakerState {
        self.breaker().state()
    }

    /// Asks to be let through. A permit that is dropped counts neither way.
    ///
    /// # Errors
    /// [`BreakerOpen`].
    pub fn enter(&self) -> Result<Permit, BreakerOpen> {
        let (admitted, turn) = self.breaker().admit(self.0.clock.monotonic());
        self.tell(turn);
        admitted.map(|call| Permit { breaker: self.clone(), call: Some(call) })
    }

    fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, turn: Option<Turn>) {
        if let (Some((from, to)), Some(on_change)) = (turn, &self.0.on_change) {
            on_change(from, to);
        }
    }
}

/// Leave to make one call.
#[derive(Debug)]
pub struct Permit {
    breaker: Breaker,
    call: Option<Admission>,
}

impl Permit {
    /// The call succeeded.
    pub fn succeeded(mut self) {
        if let Some(call) = self.call.take() {
            let turn = self.breaker.breaker().succeeded(call);
            self.breaker.tell(turn);
        }
    }

    /// The call failed.
    pub fn failed(mut self) {
        if let Some(call) = self.call.take() {
            let now = self.breaker.0.clock.monotonic();
            let turn = self.breaker.breaker().failed(call, now);
            self.breaker.tell(turn);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.breaker.breaker().abandoned(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BreakerState::{Closed, HalfOpen, Open};
    use super::*;
    use crate::model::{ManualClock, Timestamp};
    use proptest::prelude::*;

    const OPEN_FOR: Duration = Duration::from_secs(30);

    #[test]
    fn it_opens_after_five_failures_and_closes_after_two_trials_one_at_a_time() {
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let turns = Arc::new(Mutex::new(Vec::new()));
        let told = turns.clone();
        let breaker =
            Breaker::on_change(BreakerOptions::default(), clock.clone(), move |from, to| {
                told.lock().unwrap().push((from, to));
            });
        for _ in 0..4 {
            breaker.enter().unwrap().failed();
        }
        breaker.enter().unwrap().succeeded();
        for _ in 0..5 {
            assert_eq!(breaker.state(), Closed);
            breaker.enter().unwrap().failed();
        }
        assert_eq!(breaker.enter().unwrap_err(), BreakerOpen { retry_after: OPEN_FOR });
        clock.advance(OPEN_FOR - Duration::from_millis(1));
        assert!(breaker.enter().is_err());

        clock.advance(Duration::from_millis(1));
        let trial = breaker.enter().unwrap();
        assert_eq!(breaker.state(), HalfOpen);
        assert!(breaker.enter().is_err(), "one at a time");
        drop(trial);
        breaker.enter().expect("a trial that was given up makes room").failed();
        assert!(breaker.enter().is_err(), "a failure opens it again");

        clock.advance(OPEN_FOR);
        breaker.enter().unwrap().succeeded();
        assert_eq!(breaker.state(), HalfOpen);
        breaker.enter().unwrap().succeeded();
        assert_eq!(breaker.state(), Closed);
        let half = [(Open, HalfOpen), (HalfOpen, Open), (Open, HalfOpen), (HalfOpen, Closed)];
        assert_eq!(*turns.lock().unwrap(), [&[(Closed, Open)], &half[..]].concat());
    }

    #[test]
    fn a_call_from_before_does_not_judge_what_came_after() {
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let options = BreakerOptions { failures_max: 1, ..BreakerOptions::default() };
        let breaker = Breaker::new(options, clock.clone());
        let (slow, slower) = (breaker.enter().unwrap(), breaker.enter().unwrap());
        breaker.enter().unwrap().failed();
        clock.advance(OPEN_FOR);
        let trial = breaker.enter().unwrap();
        slow.failed();
        slower.succeeded();
        assert_eq!(breaker.state(), HalfOpen);
        assert!(breaker.enter().is_err(), "the trial is still under way");
        trial.succeeded();
        breaker.enter().unwrap().succeeded();
        assert_eq!(breaker.state(), Closed);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        End { which: usize, well: bool },
        Abandon { which: usize },
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Begin),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(which, well)| Step::End { which, well }),
            1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
            2 => (0u64..20).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_it_lets_calls_through_only_as_its_state_allows(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut breaker = CircuitBreaker::new(BreakerOptions {
                failures_max: 3, open_for: Duration::from_secs(10), successes_to_close: 2,
            });
            let (mut now, mut opened_at, mut calls) = (Duration::ZERO, None, Vec::new());
            let mut trials = 0;
            for step in steps {
                let before = breaker.state();
                let turn = match step {
                    Step::Begin => {
                        let (admitted, turn) = breaker.admit(now);
                        if let Some(at) = opened_at.filter(|_| before == Open) {
                            prop_assert_eq!(admitted.is_ok(), now >= at + Duration::from_secs(10));
                        }
                        if let Ok(call) = admitted {
                            calls.push(call);
                            if turn.is_some() { trials = 0; }
                            trials += usize::from(breaker.state() == HalfOpen);
                        }
                        prop_assert!(before != Closed || admitted.is_ok());
                        turn
                    }
                    Step::End { which, well } if !calls.is_empty() => {
                        let call = calls.swap_remove(which % calls.len());
                        let is_current = call.since_turn == breaker.turns;
                        let turn =
                            if well { breaker.succeeded(call) } else { breaker.failed(call, now) };
                        if is_current { trials = trials.saturating_sub(1); }
                        turn
                    }
                    Step::Abandon { which } if !calls.is_empty() => {
                        let call = calls.swap_remove(which % calls.len());
                        if call.since_turn == breaker.turns { trials = trials.saturating_sub(1); }
                        breaker.abandoned(call);
                        None
                    }
                    Step::Wait(seconds) => { now += Duration::from_secs(seconds); None }
                    _ => None,
                };
                prop_assert!(breaker.state() != HalfOpen || trials <= 1, "one trial at a time");
                prop_assert_eq!(turn.map(|turn| turn.0), turn.map(|_| before));
                prop_assert_eq!(turn.is_some(), breaker.state() != before);
                if matches!(turn, Some((_, Open))) { opened_at = Some(now); }
            }
        }
    }
}
