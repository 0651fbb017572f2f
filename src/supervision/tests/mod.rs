//! The tree on a real actix system: what callers see, and what becomes of actors that end in every
//! way there is. Conditions are awaited through the tree's events, never slept for.

mod exits;
mod hangs;
mod outcomes;
mod trees;

use super::*;
use crate::model::{Disposition, SystemClock};
use crate::observe::{Hub, HubLimits};
use actix::{Actor, ActorContext, Context, Handler, Message, System};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;

const LONG: Duration = Duration::from_secs(10);

/// Adds up; does on request everything that actors should not do.
struct Adder {
    sum: u64,
    seat: Seat<Adder>,
    owed: Vec<Reply<u64>>,
    on_stop: OnStop,
    stops: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum OnStop {
    Obey,
    Refuse,
    Panic,
}

impl Actor for Adder {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Self::Context) -> actix::Running {
        match self.on_stop {
            OnStop::Refuse => actix::Running::Continue,
            OnStop::Obey | OnStop::Panic => actix::Running::Stop,
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stops.lock().unwrap().push(self.seat.path().to_string());
        assert!(self.on_stop != OnStop::Panic, "panic in stopped");
    }
}

#[derive(Debug)]
enum Ask {
    Add(u64, Reply<u64>),
    /// Answers never, yet keeps the reply.
    Owe(Reply<u64>),
    Panic(Reply<u64>),
    PanicLater(Reply<u64>),
    Block(Duration, Reply<u64>),
    /// Waits on itself for ever.
    Deadlock,
    Fail(&'static str, Disposition),
    /// Sends to another actor after blocking: what an abandoned thread must not manage to do.
    BlockThenTell(Duration, ActorRef<Adder>, std::sync::mpsc::Sender<Result<(), Refused>>),
    Forget,
}

impl Message for Ask {
    type Result = ();
}

mail!(Ask);
receives!(Adder: Ask);

impl Handler<Ask> for Adder {
    type Result = ();

    fn handle(&mut self, ask: Ask, ctx: &mut Self::Context) {
        match ask {
            Ask::Add(amount, reply) => {
                self.sum += amount;
                reply.send(self.sum);
            }
            Ask::Owe(reply) => self.owed.push(reply),
            Ask::Panic(_reply) => panic!("boom in handler"),
            Ask::PanicLater(reply) => {
                use actix::{AsyncContext, WrapFuture};
                let later = async move {
                    tokio::task::yield_now().await;
                    let _reply = reply;
                    panic!("boom in future")
                };
                ctx.spawn(later.into_actor(self));
            }
            Ask::Block(time, reply) => {
                std::thread::sleep(time);
                reply.send(0);
            }
            Ask::Deadlock => {
                use actix::{AsyncContext, WrapFuture};
                ctx.wait(std::future::pending::<()>().into_actor(self));
            }
            Ask::Fail(reason, disposition) => {
                self.seat.fail(reason, disposition);
                ctx.stop();
            }
            Ask::BlockThenTell(time, other, outcome) => {
                std::thread::sleep(time);
                outcome.send(other.complete(Ask::Forget)).ok();
            }
            Ask::Forget => self.owed.clear(),
        }
    }
}

fn adder() -> impl Fn(&mut Context<Adder>, Seat<Adder>) -> Adder + Send + Sync + 'static {
    adder_that(OnStop::Obey, Arc::default())
}

fn adder_that(
    on_stop: OnStop,
    stops: Arc<Mutex<Vec<String>>>,
) -> impl Fn(&mut Context<Adder>, Seat<Adder>) -> Adder + Send + Sync + 'static {
    move |_, seat| Adder { sum: 0, seat, owed: Vec::new(), on_stop, stops: Arc::clone(&stops) }
}

fn spec(name: &'static str) -> ChildSpec {
    let backoff =
        Backoff { min: Duration::from_millis(1), max: Duration::from_millis(20), jitter: 0.0 };
    let grace = Duration::from_millis(50);
    ChildSpec { backoff, shutdown_grace: grace, ..ChildSpec::new(name) }
}

fn plan(name: &'static str, strategy: Strategy, restarts_max: u32) -> SupervisorSpec {
    SupervisorSpec {
        intensity: Intensity { restarts_max, window: Duration::from_secs(60) },
        ..SupervisorSpec::new(name, strategy, Exhausted::Escalate)
    }
}

fn root(plan: SupervisorSpec) -> Supervisor {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let hub = Hub::new(logger.clone(), None, HubLimits::default());
    let clock = Arc::new(SystemClock::new());
    Supervisor::new(plan, Environment { clock, seed: 7, logger, hub, crashes: None })
}

/// A running tree and everything that has happened in it.
struct Seen {
    tree: TreeHandle,
    news: broadcast::Receiver<Event>,
    events: Vec<Event>,
}

impl Seen {
    async fn start(root: &Supervisor) -> Self {
        let tree = root.start();
        let mut seen = Self { news: tree.subscribe(), tree, events: Vec::new() };
        seen.tree.ready().await.unwrap();
        seen.catch_up();
        seen
    }

    fn catch_up(&mut self) {
        while let Ok(event) = self.news.try_recv() {
            self.events.push(event);
        }
    }

    /// Waits for an event about `path`; one that was waited for before is not found again.
    async fn until(&mut self, path: &ActorPath, is_it: impl Fn(&Event) -> bool) -> Event {
        let found = async {
            loop {
                let event = self.news.recv().await.unwrap();
                self.events.push(event.clone());
                if event.path == *path && is_it(&event) {
                    return event;
                }
            }
        };
        let found = tokio::time::timeout(LONG, found).await;
        found.unwrap_or_else(|_| panic!("nothing of the kind of {path} in {:#?}", self.events))
    }

    async fn started(&mut self, actor: &ActorRef<Adder>, generation: u64) {
        let this =
            |event: &Event| event.kind == EventKind::Started && event.generation == generation;
        self.until(actor.path(), this).await;
    }

    async fn exit_of(&mut self, path: &ActorPath) -> ExitReason {
        let exited = |event: &Event| matches!(event.kind, EventKind::Exited { .. });
        match self.until(path, exited).await.kind {
            EventKind::Exited { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    fn count(&mut self, path: &ActorPath, kind: &EventKind) -> usize {
        self.catch_up();
        self.events.iter().filter(|event| event.path == *path && event.kind == *kind).count()
    }
}

async fn add(actor: &ActorRef<Adder>, amount: u64) -> Result<u64, AskError> {
    actor.ask(8, LONG, |reply| Ask::Add(amount, reply)).await
}

/// Runs a test on an actix system of its own.
fn on_system(test: impl Future<Output = ()> + 'static) {
    System::new().block_on(test);
}

/// How many threads this process has.
#[allow(clippy::disallowed_methods, reason = "procfs, not a file of the log")]
fn threads() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    line.trim().parse().unwrap()
}
