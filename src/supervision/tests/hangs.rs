//! What hangs is found, left, and replaced; and what it does when it wakes reaches nobody.

use super::*;

fn impatient(name: &'static str) -> ChildSpec {
    ChildSpec { hang_after: Duration::from_millis(80), ..spec(name) }
}

/// Goal: a hung thread is given up with all that lives on it, while it still sleeps; woken, it can
/// neither write nor send. Method: a handler that blocks, holding its disk's fence between calls,
/// and then tries both.
#[test]
fn a_hung_shard_is_abandoned_and_what_wakes_there_is_fenced_off() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let hangs = root.child(impatient("hangs"), Place::Shard(Arc::clone(&shard)), adder());
        let sibling = root.child(spec("sibling"), Place::Shard(Arc::clone(&shard)), adder());
        let other = root.child(spec("other"), Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        let fence = Fence::new();
        let old = fence.advance(hangs.generation(), LONG).unwrap();
        let (owed, answer) = sibling.open::<u64>(1).unwrap();
        sibling.tell(Ask::Owe(owed)).unwrap();

        let (outcome, told) = std::sync::mpsc::channel();
        let asleep = Duration::from_millis(600);
        hangs.tell(Ask::BlockThenTell(asleep, other.clone(), outcome)).unwrap();
        let reason = seen.exit_of(hangs.path()).await;
        assert!(matches!(reason, ExitReason::Hung { .. }), "{reason}");
        assert_eq!(seen.exit_of(sibling.path()).await, ExitReason::Abandoned);
        let died = answer.await.unwrap_err();
        assert!(matches!(died, AskError::Died { .. }), "asked of the abandoned: {died}");
        while hangs.generation() < 2 || sibling.state() != State::Running {
            tokio::task::yield_now().await;
        }
        assert_eq!(add(&sibling, 1).await, Ok(1));
        assert_eq!(add(&hangs, 1).await, Ok(1));
        assert_eq!((shard.abandoned(), told.try_recv().is_err()), (1, true), "it still sleeps");

        fence.advance(hangs.generation(), LONG).unwrap();
        assert!(matches!(old.enter(), Err(FenceError::Fenced { current: 2, .. })));
        let told = tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
        assert!(matches!(told, Err(Refused::Stopped { .. })), "{told:?}");
        assert_eq!((hangs.generation(), sibling.generation(), other.generation()), (2, 2, 1));
        let abandoned = seen.count(hangs.path(), &EventKind::Abandoned);
        assert_eq!(abandoned, 1);
        seen.tree.shutdown().await.unwrap();
    });
}

/// Goal: what lies in the mailbox of a life that was given up is not told of as the next life's.
/// Method: messages behind one that blocks; they are looked for while the old thread still sleeps.
#[test]
#[cfg(feature = "observe")]
fn what_lies_in_an_abandoned_mailbox_is_not_counted_as_the_next_lifes() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let hangs = root.child(impatient("hangs"), Place::Shard(Arc::clone(&shard)), adder());
        let other = root.child(spec("other"), Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        let recorder = Arc::clone(&hangs.slot().vitals.recorder);
        let (outcome, told) = std::sync::mpsc::channel();
        hangs.tell(Ask::BlockThenTell(Duration::from_secs(2), other, outcome)).unwrap();
        for _ in 0..3 {
            hangs.tell(Ask::Forget).unwrap();
        }
        assert!(recorder.reading().mailbox >= 3, "{:?}", recorder.reading());
        let reason = seen.exit_of(hangs.path()).await;
        assert!(matches!(reason, ExitReason::Hung { .. }), "{reason}");
        seen.started(&hangs, 2).await;
        assert_eq!(add(&hangs, 1).await, Ok(1));
        assert_eq!(recorder.reading().mailbox, 0);
        assert!(told.try_recv().is_err(), "the old thread still sleeps on its messages");
        seen.tree.shutdown().await.unwrap();
    });
}

/// Goal: whoever holds a thread up is blamed, not who is noticed first. Method: the one that is
/// watched closely is not the one that hangs.
#[test]
fn who_sits_in_the_call_is_blamed_for_the_hang_and_not_who_is_noticed_first() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let noticed = root.child(impatient("noticed"), Place::Shard(Arc::clone(&shard)), adder());
        let hangs = root.child(spec("hangs"), Place::Shard(shard), adder());
        let mut seen = Seen::start(&root).await;
        let fault = Fault::Hang(Duration::from_millis(600));
        seen.tree.inject(hangs.path(), fault).await.unwrap();
        // The elder's exit is told first.
        assert_eq!(seen.exit_of(noticed.path()).await, ExitReason::Abandoned);
        let reason = seen.exit_of(hangs.path()).await;
        assert!(matches!(reason, ExitReason::Hung { .. }), "{reason}");
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_hang_that_is_injected_is_found_too() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let actor = root.child(impatient("a"), Place::Shard(shard), adder());
        let mut seen = Seen::start(&root).await;
        let fault = Fault::Hang(Duration::from_millis(500));
        seen.tree.inject(actor.path(), fault).await.unwrap();
        seen.started(&actor, 2).await;
        assert_eq!(add(&actor, 1).await, Ok(1));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_factory_that_hangs_is_found_too() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let (back, returned) = std::sync::mpsc::channel();
        let actor = root.child(impatient("a"), Place::Shard(shard), move |ctx, seat| {
            if seat.generation() == 1 {
                std::thread::sleep(Duration::from_millis(500));
                back.send(()).unwrap();
            }
            adder()(ctx, seat)
        });
        let mut seen = Seen::start(&root).await;
        while actor.generation() < 2 || actor.state() != State::Running {
            seen.started(&actor, 2).await;
        }
        assert_eq!(add(&actor, 1).await, Ok(1));
        // The first factory returns on its abandoned thread: its actor must reach nobody.
        let returned = tokio::task::spawn_blocking(move || returned.recv().unwrap()).await;
        returned.unwrap();
        for sum in 2..200 {
            assert_eq!(add(&actor, 1).await, Ok(sum));
        }
        assert_eq!(actor.generation(), 2);
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn an_actor_that_waits_on_itself_is_aborted_and_its_thread_kept() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        // A thread that gets no processor for a while is no hung one.
        let patient = |name| ChildSpec { hang_after: Duration::from_millis(500), ..spec(name) };
        let stuck = root.child(patient("stuck"), Place::Shard(Arc::clone(&shard)), adder());
        let sibling = root.child(patient("sibling"), Place::Shard(Arc::clone(&shard)), adder());
        let control = root.child(patient("control"), Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        stuck.tell(Ask::Deadlock).unwrap();
        let reason = seen.exit_of(stuck.path()).await;
        assert!(matches!(reason, ExitReason::Hung { .. }), "{reason}");
        seen.started(&stuck, 2).await;
        assert_eq!((shard.abandoned(), sibling.generation()), (0, 1));
        control.tell(Ask::Deadlock).unwrap();
        seen.started(&control, 2).await;
        assert_eq!((add(&stuck, 1).await, add(&control, 1).await), (Ok(1), Ok(1)));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn an_idle_or_busy_actor_is_not_taken_for_a_hung_one() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 0));
        let shard = Shard::new("shard-0");
        let spec = |name| ChildSpec { hang_after: Duration::from_millis(250), ..spec(name) };
        let busy = root.child(spec("busy"), Place::Shard(Arc::clone(&shard)), adder());
        let idle = root.child(spec("idle"), Place::Shard(shard), adder());
        let seen = Seen::start(&root).await;
        let clock = SystemClock::new();
        use crate::model::Clock;
        while clock.monotonic() < Duration::from_millis(900) {
            let short = Duration::from_millis(2);
            busy.ask(1, LONG, |reply| Ask::Block(short, reply)).await.unwrap();
        }
        assert_eq!((busy.generation(), idle.generation()), (1, 1));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_stop_that_is_refused_becomes_an_abort_and_one_that_hangs_an_abandonment() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let refuses =
            root.child(spec("refuses"), Place::Control, adder_that(OnStop::Refuse, Arc::default()));
        let hangs = root.child(spec("hangs"), Place::Shard(Arc::clone(&shard)), adder());
        let mut seen = Seen::start(&root).await;
        let (reply, answer) = hangs.open(1).unwrap();
        hangs.tell(Ask::Block(Duration::from_secs(2), reply)).unwrap();
        seen.tree.shutdown().await.unwrap();
        assert!(matches!(answer.await, Err(AskError::Died { .. })));
        assert_eq!(shard.abandoned(), 1);
        seen.catch_up();
        let exit = |path: &ActorPath| {
            let mut exits = seen.events.iter().filter(|event| event.path == *path);
            exits.find_map(|event| match &event.kind {
                EventKind::Exited { reason } => Some(reason.clone()),
                _ => None,
            })
        };
        assert_eq!(exit(refuses.path()), Some(ExitReason::Killed));
        assert!(matches!(exit(hangs.path()), Some(ExitReason::Hung { .. })));
    });
}
