//! One life of an actor, from the factory to the notice of its exit.
//!
//! The actor's context is driven by a future of ours, not by actix's `start`: so a panic is caught
//! with its reason, an abort is possible, and the notice is sent however the life ends, because
//! sending it is the last thing dropped.

use super::exit::contain;
use super::place::{Place, Shard};
use super::run::{Inbox, Input};
use super::seat::{Child, Seat};
use super::slot::{Account, Live, Slot, locked, run_as};
use super::{ActorRef, Admission, ChildSpec, ExitReason, Load};
use crate::observe::{self, Mailbox, Reading, Recorder, Scope};
use actix::dev::ContextFut;
use actix::fut::{ActorStreamExt, wrap_stream};
use actix::{ActorContext, AsyncContext, Context};
use futures_channel::mpsc;
use slog::{Logger, o};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::oneshot;

/// What can be done to an actor from inside, to see what the tree does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Panics with this text.
    Panic(String),
    /// Blocks the actor's thread this long.
    Hang(Duration),
    /// Stops as if by its own will.
    Exit,
    /// Refuses requests this long as if so much were under way.
    Fill {
        /// Which bound is reached. A full mailbox still takes one message at a time.
        what: Load,
        /// For how long.
        time: Duration,
    },
}

/// What the tree tells a life. Never more than a stop, one question and what tests inject.
pub(super) enum Order {
    Stop,
    GiveSign(u64),
    Suffer(Fault),
}

/// What a life and its watchers write down together.
pub(super) struct Notes {
    pub(super) account: Arc<Account>,
    reason: Mutex<Option<ExitReason>>,
    last: Mutex<Option<LastReading>>,
}

/// What was at an actor when its life ended: its end clears it all away.
#[derive(Debug, Clone, Default)]
pub(super) struct LastReading {
    pub(super) reading: Reading,
    pub(super) in_flight: usize,
}

impl Notes {
    /// Writes down why the life ends, unless that is known.
    pub(super) fn settle(&self, reason: ExitReason) {
        locked(&self.reason).get_or_insert(reason);
    }

    /// Writes down what is at the actor now, unless that was done before.
    pub(super) fn witness(&self, recorder: &Recorder) {
        locked(&self.last).get_or_insert_with(|| LastReading {
            reading: recorder.reading(),
            in_flight: self.account.in_flight(),
        });
    }

    pub(super) fn last(&self) -> Option<LastReading> {
        locked(&self.last).clone()
    }

    fn reason(&self) -> ExitReason {
        locked(&self.reason).clone().unwrap_or(ExitReason::Killed)
    }
}

/// What shows from outside that a life gets on.
#[derive(Default)]
pub(super) struct Pulse {
    pub(super) answered: AtomicU64,
    pub(super) polls: AtomicU64,
    pub(super) in_poll: AtomicBool,
    pub(super) thread_polls: Arc<AtomicU64>,
}

impl Pulse {
    fn enter(&self) -> InPoll<'_> {
        self.polls.fetch_add(1, Ordering::AcqRel);
        self.thread_polls.fetch_add(1, Ordering::AcqRel);
        self.in_poll.store(true, Ordering::Release);
        InPoll { pulse: self }
    }
}

struct InPoll<'a> {
    pulse: &'a Pulse,
}

impl Drop for InPoll<'_> {
    fn drop(&mut self) {
        self.pulse.in_poll.store(false, Ordering::Release);
    }
}

/// The tree's hold on a life.
pub(super) struct Hold {
    pub(super) generation: u64,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) kill: Option<oneshot::Sender<()>>,
    pub(super) notes: Arc<Notes>,
    pub(super) pulse: Arc<Pulse>,
    /// The thread that it lives on, where that can be given up.
    pub(super) thread: Option<(Arc<Shard>, u64)>,
}

/// A child of any type, as the tree starts it.
pub(super) trait Runner: Send {
    /// Begins a life; its exit is sent to the inbox.
    fn start(&self, id: u64, generation: u64, inbox: &Inbox, logger: &Logger) -> Hold;
    /// Makes a life unreachable.
    fn retract(&self, generation: u64);
}

type Factory<A> = dyn Fn(&mut Context<A>, Seat<A>) -> A + Send + Sync;

/// A child of a known type.
pub(super) struct Typed<A: Child> {
    pub(super) slot: Arc<Slot<A>>,
    pub(super) spec: ChildSpec,
    pub(super) place: Place,
    pub(super) factory: Arc<Factory<A>>,
}

impl<A: Child> Runner for Typed<A> {
    fn start(&self, id: u64, generation: u64, inbox: &Inbox, logger: &Logger) -> Hold {
        let host = match &self.place {
            Place::Control => None,
            Place::Shard(shard) => Some((Arc::clone(shard), shard.current())),
        };
        let polls = match &host {
            None => Arc::default(),
            Some((shard, _)) => shard.polls(),
        };
        let notes = Arc::new(Notes {
            account: Account::open(),
            reason: Mutex::new(None),
            last: Mutex::new(None),
        });
        let pulse = Arc::new(Pulse { thread_polls: polls, ..Pulse::default() });
        // Not tokio's: that keeps room for 32 orders, which a thousand idle actors never get.
        let (orders, obeyed) = mpsc::unbounded();
        let (kill, killed) = oneshot::channel();
        let birth = Birth {
            notice: Notice {
                id,
                generation,
                slot: Arc::clone(&self.slot),
                notes: Arc::clone(&notes),
                inbox: inbox.clone(),
            },
            mailbox: Mailbox::of_new_life(&self.slot.vitals.recorder),
            orders: obeyed,
            killed,
            pulse: Arc::clone(&pulse),
            factory: Arc::clone(&self.factory),
            mailbox_len_max: self.spec.mailbox_len_max,
            logger: logger
                .new(o!("actor" => self.slot.vitals.path.to_string(), "generation" => generation)),
        };
        let thread = match host {
            None => {
                actix_rt::spawn(birth.live());
                None
            }
            Some((shard, (thread, handle))) => {
                // Refused by a dead thread, the closure is dropped, and the notice with it.
                handle.spawn_fn(move || {
                    actix_rt::spawn(birth.live());
                });
                Some((shard, thread))
            }
        };
        Hold { generation, orders, kill: Some(kill), notes, pulse, thread }
    }

    fn retract(&self, generation: u64) {
        self.slot.retract(generation);
    }
}

/// Tells the tree that the life has ended: by being dropped.
struct Notice<A: Child> {
    id: u64,
    generation: u64,
    slot: Arc<Slot<A>>,
    notes: Arc<Notes>,
    inbox: Inbox,
}

impl<A: Child> Drop for Notice<A> {
    fn drop(&mut self) {
        self.slot.retract(self.generation);
        self.notes.account.close();
        self.inbox.send(Input::Exited {
            id: self.id,
            generation: self.generation,
            reason: self.notes.reason(),
        });
    }
}

/// All that a life needs to begin, on its way to its thread.
struct Birth<A: Child> {
    notice: Notice<A>,
    mailbox: Arc<Mailbox>,
    orders: mpsc::UnboundedReceiver<Order>,
    killed: oneshot::Receiver<()>,
    pulse: Arc<Pulse>,
    factory: Arc<Factory<A>>,
    mailbox_len_max: usize,
    logger: Logger,
}

impl<A: Child> Birth<A> {
    async fn live(self) {
        let Self { notice, mailbox, orders, killed, pulse, factory, mailbox_len_max, logger } =
            self;
        // Moved first, so dropped last: whatever else there is of the life is gone by then.
        let notice = notice;
        let notes = Arc::clone(&notice.notes);
        let bounds = Bounds {
            account: Arc::clone(&notes.account),
            admission: notice.slot.admission,
            mailbox_len_max,
        };
        let seat = Seat {
            me: ActorRef::new(Arc::clone(&notice.slot)),
            generation: notice.generation,
            notes: Arc::clone(&notes),
            mailbox: Arc::clone(&mailbox),
            clock: Arc::clone(&notice.slot.vitals.clock),
            logger,
        };
        let built = contain(|| {
            let _run = run_as(notes.account.life());
            let _scope = observe::enter(Scope::of_actor(notice.slot.vitals.recorder.path()));
            let _in = pulse.enter();
            let mut ctx = Context::<A>::new();
            ctx.set_mailbox_capacity(mailbox_len_max);
            let pulse = Arc::clone(&pulse);
            ctx.spawn(
                wrap_stream::<_, A>(orders)
                    .map(move |order, _, ctx: &mut Context<A>| obey(order, ctx, &pulse, &bounds))
                    .finish(),
            );
            let actor = factory(&mut ctx, seat);
            (ctx.address(), Box::new(ctx.into_future(actor)))
        });
        match built {
            Err(reason) => notes.settle(reason),
            Ok((addr, actor)) => {
                let (generation, account) = (notice.generation, Arc::clone(&notes.account));
                notice.slot.publish(Live { generation, addr, account, mailbox });
                let life = Life {
                    notice: &notice,
                    actor: Some(actor),
                    killed: Some(killed),
                    pulse,
                    begun: false,
                };
                let reason = life.await;
                notes.settle(reason);
            }
        }
        drop(notice);
    }
}

/// What bounds the requests to one life.
struct Bounds {
    account: Arc<Account>,
    admission: Admission,
    mailbox_len_max: usize,
}

impl Bounds {
    fn fill<A: Child>(&self, what: Load, time: Duration, ctx: &mut Context<A>) {
        let Admission { messages_max, bytes_max } = self.admission;
        let ballast = match what {
            Load::Messages => self.account.burden(messages_max, 0),
            Load::Bytes => self.account.burden(0, bytes_max),
            Load::Mailbox => {
                ctx.set_mailbox_capacity(1);
                self.account.burden(0, 0)
            }
        };
        let mailbox_len_max = self.mailbox_len_max;
        ctx.run_later(time, move |_, ctx| {
            ctx.set_mailbox_capacity(mailbox_len_max);
            drop(ballast);
        });
    }
}

fn obey<A: Child>(order: Order, ctx: &mut Context<A>, pulse: &Pulse, bounds: &Bounds) {
    match order {
        Order::Stop | Order::Suffer(Fault::Exit) => ctx.stop(),
        Order::GiveSign(number) => pulse.answered.store(number, Ordering::Release),
        Order::Suffer(Fault::Panic(text)) => panic!("{text}"),
        Order::Suffer(Fault::Hang(time)) => std::thread::sleep(time),
        Order::Suffer(Fault::Fill { what, time }) => bounds.fill(what, time, ctx),
    }
}

/// Drives the actor; resolves to how it ended, when nothing of it is left.
struct Life<'a, A: Child> {
    notice: &'a Notice<A>,
    /// Apart from the rest, which is moved, and so would take its size twice.
    actor: Option<Box<ContextFut<A, Context<A>>>>,
    killed: Option<oneshot::Receiver<()>>,
    pulse: Arc<Pulse>,
    begun: bool,
}

impl<A: Child> Life<'_, A> {
    fn is_killed(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let Some(killed) = &mut self.killed else { return false };
        match Pin::new(killed).poll(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => {
                self.killed = None;
                false
            }
        }
    }

    /// Drops what is left of the actor. Unless it ended in order, its `stopping` and `stopped` are
    /// not called: its state may be half changed.
    fn bury(&mut self, reason: ExitReason) -> ExitReason {
        let Some(mut actor) = self.actor.take() else { return reason };
        self.notice.notes.witness(&self.notice.slot.vitals.recorder);
        let dropped = contain(|| {
            if reason.is_crash() {
                actor.ctx().terminate();
            }
            drop(actor);
        });
        match dropped {
            Err(second) if !reason.is_crash() => second,
            _ => reason,
        }
    }
}

impl<A: Child> Future for Life<'_, A> {
    type Output = ExitReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<ExitReason> {
        let this = &mut *self;
        let _run = run_as(this.notice.notes.account.life());
        let _scope = observe::enter(Scope::of_actor(this.notice.slot.vitals.recorder.path()));
        let pulse = Arc::clone(&this.pulse);
        let _in = pulse.enter();
        if this.is_killed(cx) {
            return Poll::Ready(this.bury(ExitReason::Killed));
        }
        let Some(actor) = &mut this.actor else { return Poll::Ready(ExitReason::Killed) };
        match contain(|| Pin::new(actor).poll(cx)) {
            Ok(Poll::Ready(())) => Poll::Ready(this.bury(ExitReason::Normal)),
            Err(reason) => Poll::Ready(this.bury(reason)),
            Ok(Poll::Pending) => {
                if !this.begun {
                    this.begun = true;
                    let (id, generation) = (this.notice.id, this.notice.generation);
                    this.notice.inbox.send(Input::Started { id, generation });
                }
                Poll::Pending
            }
        }
    }
}

impl<A: Child> Drop for Life<'_, A> {
    fn drop(&mut self) {
        if self.actor.is_some() {
            // Its thread ends under it.
            let reason = self.bury(ExitReason::Killed);
            self.notice.notes.settle(reason);
        }
    }
}
