//! What outlives an actor's lives: its state as callers see it, and per life the address and the
//! account of what is under way.
//!
//! The account belongs to one life, not to the actor: a thread that is given up keeps its mailbox
//! for ever, and what lies in there must not count against the next life.

use super::place::thread_is_abandoned;
use super::seat::Child;
use super::status::State;
use super::{ActorPath, Admission, ExitReason, Load, Refused};
use crate::model::Clock;
use crate::observe::{Hub, Mailbox, Recorder};
use actix::Addr;
use arc_swap::ArcSwapOption;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

/// What a caller is told to wait when nobody knows better.
const RETRY_AFTER: Duration = Duration::from_millis(20);

thread_local! {
    /// The account of the life that this thread is running at the moment; 0 is none.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
}

/// Marks the life that this thread runs until the guard is dropped.
pub(super) fn run_as(life: u64) -> RunningGuard {
    RunningGuard { before: RUNNING.replace(life) }
}

/// See [`run_as`].
pub(super) struct RunningGuard {
    before: u64,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        RUNNING.set(self.before);
    }
}

/// What is under way at one life of an actor, and who waits for it.
#[derive(Default)]
pub(super) struct Account {
    /// Tells lives apart across the whole process.
    life: u64,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Requests that the life itself has finished: a sign that it is not hung.
    finished: AtomicU64,
    /// Requests are refused: the life is about to end. Completions still pass.
    closing: AtomicBool,
    /// The life was given up: what was asked of it will never be answered.
    ended: AtomicBool,
    waiters: Mutex<Waiters>,
}

impl Account {
    pub(super) fn open() -> Arc<Self> {
        static LIVES: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self { life: LIVES.fetch_add(1, Ordering::Relaxed), ..Self::default() })
    }

    pub(super) fn life(&self) -> u64 {
        self.life
    }

    pub(super) fn admit(self: &Arc<Self>, bytes: usize, by: Admission) -> Result<Permit, Load> {
        if self.messages.fetch_add(1, Ordering::AcqRel) >= by.messages_max {
            self.messages.fetch_sub(1, Ordering::AcqRel);
            return Err(Load::Messages);
        }
        let held = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        // A request larger than the bound would otherwise wait for ever: it passes alone.
        if held > 0 && held.saturating_add(bytes) > by.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.messages.fetch_sub(1, Ordering::AcqRel);
            return Err(Load::Bytes);
        }
        Ok(Permit { account: Arc::clone(self), bytes })
    }

    /// Counts as so much more under way until what is returned is dropped.
    pub(super) fn burden(self: &Arc<Self>, messages: usize, bytes: usize) -> Ballast {
        self.messages.fetch_add(messages, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Ballast { account: Arc::clone(self), messages, bytes }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.messages.load(Ordering::Acquire)
    }

    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    pub(super) fn note_progress(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Tells everyone who waits that no answer will come.
    pub(super) fn end(&self) {
        self.close();
        self.ended.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut locked(&self.waiters).wakers);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Registers a waiter, or renews its waker. Returns its key.
    pub(super) fn wait(&self, key: Option<usize>, waker: &Waker) -> usize {
        locked(&self.waiters).put(key, waker)
    }

    pub(super) fn forget(&self, key: usize) {
        locked(&self.waiters).remove(key);
    }
}

/// See [`Account::burden`].
pub(super) struct Ballast {
    account: Arc<Account>,
    messages: usize,
    bytes: usize,
}

impl Drop for Ballast {
    fn drop(&mut self) {
        self.account.messages.fetch_sub(self.messages, Ordering::AcqRel);
        self.account.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Wakers by a small key that is used again.
#[derive(Default)]
struct Waiters {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Waiters {
    fn put(&mut self, key: Option<usize>, waker: &Waker) -> usize {
        let key = key.or_else(|| self.free.pop()).unwrap_or(self.wakers.len());
        if key >= self.wakers.len() {
            self.wakers.resize(key + 1, None);
        }
        match &mut self.wakers[key] {
            Some(known) => known.clone_from(waker),
            vacant => *vacant = Some(waker.clone()),
        }
        key
    }

    fn remove(&mut self, key: usize) {
        if let Some(waker) = self.wakers.get_mut(key) {
            *waker = None;
            self.free.push(key);
        }
    }
}

/// The right to have one request under way. Travels inside the request; its end, wherever that
/// is, makes room for the next.
#[must_use = "a permit that is dropped admits nothing"]
pub struct Permit {
    account: Arc<Account>,
    bytes: usize,
}

impl Permit {
    /// The bytes it was given for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Only what the actor itself lets go of is its progress: a caller whose message is refused
        // drops permits as well.
        if RUNNING.get() == self.account.life {
            self.account.note_progress();
        }
        self.account.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.account.messages.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({}B)", self.bytes)
    }
}

/// What is known of a place in the tree; written by the tree, read by anyone.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) restarts: u64,
    pub(super) last_exit: Option<ExitReason>,
    pub(super) started_at: Option<Duration>,
}

/// The untyped part of a slot.
pub(super) struct Vitals {
    pub(super) path: ActorPath,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) recorder: Arc<Recorder>,
    facts: Mutex<Facts>,
    refused: AtomicU64,
    account: ArcSwapOption<Account>,
}

impl Vitals {
    pub(super) fn new(path: ActorPath, clock: Arc<dyn Clock>, hub: &Arc<Hub>) -> Arc<Self> {
        let recorder = hub.recorder(path.as_str(), &clock);
        let facts = Facts {
            state: State::Starting,
            generation: 0,
            restarts: 0,
            last_exit: None,
            started_at: None,
        };
        Arc::new(Self {
            path,
            clock,
            recorder,
            facts: Mutex::new(facts),
            refused: AtomicU64::new(0),
            account: ArcSwapOption::empty(),
        })
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        locked(&self.facts)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn set_account(&self, account: Option<Arc<Account>>) {
        self.account.store(account);
    }

    pub(super) fn in_flight_bytes(&self) -> usize {
        self.account.load().as_ref().map_or(0, |account| account.bytes.load(Ordering::Relaxed))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.account.load().as_ref().map_or(0, |account| account.in_flight())
    }

    /// Says why a caller cannot be served just now.
    pub(super) fn refusal(&self) -> Refused {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let path = self.path.clone();
        match &self.facts().state {
            State::Stopped | State::Stopping => Refused::Stopped { path },
            State::Quarantined { reason, since } => {
                Refused::Quarantined { path, reason: reason.clone(), since: *since }
            }
            State::Restarting { until } => {
                let left = until.saturating_sub(self.clock.monotonic());
                Refused::Restarting { path, retry_after: left.max(RETRY_AFTER) }
            }
            State::Starting | State::Running => {
                Refused::Restarting { path, retry_after: RETRY_AFTER }
            }
        }
    }

    pub(super) fn overloaded(&self, what: Load) -> Refused {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Refused::Overloaded { path: self.path.clone(), retry_after: RETRY_AFTER, what }
    }
}

/// One life, as callers reach it.
pub(super) struct Live<A: Child> {
    pub(super) generation: u64,
    pub(super) addr: Addr<A>,
    pub(super) account: Arc<Account>,
    pub(super) mailbox: Arc<Mailbox>,
}

/// What every reference to an actor shares.
pub(super) struct Slot<A: Child> {
    pub(super) vitals: Arc<Vitals>,
    pub(super) admission: Admission,
    live: ArcSwapOption<Live<A>>,
}

impl<A: Child> Slot<A> {
    pub(super) fn new(vitals: Arc<Vitals>, admission: Admission) -> Arc<Self> {
        Arc::new(Self { vitals, admission, live: ArcSwapOption::empty() })
    }

    /// Makes a life reachable, unless a newer one is or it was given up.
    pub(super) fn publish(&self, live: Live<A>) {
        let (generation, account) = (live.generation, Arc::clone(&live.account));
        let live = Arc::new(live);
        self.live.rcu(|known| match known {
            Some(known) if known.generation > generation => Some(Arc::clone(known)),
            _ => Some(Arc::clone(&live)),
        });
        // Who gives a life up first ends its account and then retracts it: whichever of the two
        // comes last, here or there, leaves it unreachable.
        if account.has_ended() {
            self.retract(generation);
        } else if self.live.load().as_ref().is_some_and(|live| live.generation == generation) {
            self.vitals.set_account(Some(account));
        }
    }

    /// Makes a life unreachable. Does nothing to a newer one.
    pub(super) fn retract(&self, generation: u64) {
        self.live.rcu(|live| live.clone().filter(|live| live.generation != generation));
    }

    /// Runs `with` on the present life; `completing` also reaches one that is about to end.
    pub(super) fn reach<T>(
        &self,
        completing: bool,
        with: impl FnOnce(&Live<A>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        // A thread that was given up may wake again: nothing it says reaches anyone.
        if thread_is_abandoned() {
            return Err(Refused::Stopped { path: self.vitals.path.clone() });
        }
        match &*self.live.load() {
            Some(live) if completing || !live.account.is_closing() => with(live),
            _ => Err(self.vitals.refusal()),
        }
    }
}

/// Locks; a panic under one of our locks leaves whole values behind, so that poison is no news.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
