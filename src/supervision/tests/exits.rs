//! Every way in which a life can end is seen, told apart, and answered with a new life.

use super::*;

/// Goal: exits are counted also when there are more than any reader of events keeps up with.
/// Method: more events than are kept for a reader, who is shown to have lost some.
#[test]
fn every_exit_and_restart_is_counted_by_kind_of_actor() {
    const CRASHES: u64 = 400;
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, u32::MAX));
        let once = Duration::from_micros(1);
        let backoff = Backoff { min: once, max: once, jitter: 0.0 };
        let crashes = root.child(ChildSpec { backoff, ..spec("crashes") }, Place::Control, adder());
        let calm = root.child(spec("calm"), Place::Control, adder());
        let seen = Seen::start(&root).await;
        let mut reader = seen.tree.subscribe();
        for crash in 1..=CRASHES {
            while crashes.generation() < crash || crashes.state() != State::Running {
                tokio::task::yield_now().await;
            }
            seen.tree.inject(crashes.path(), Fault::Panic("again".into())).await.unwrap();
        }
        while crashes.generation() <= CRASHES || crashes.state() != State::Running {
            tokio::task::yield_now().await;
        }
        let lagged = reader.try_recv();
        assert!(matches!(lagged, Err(broadcast::error::TryRecvError::Lagged(_))), "{lagged:?}");
        let tally = seen.tree.tally();
        assert_eq!(
            (tally.exits("crashes", "panic"), tally.restarts("crashes")),
            (CRASHES, CRASHES)
        );
        assert_eq!((tally.exits("calm", "panic"), tally.restarts("calm")), (0, 0));
        assert_eq!((tally.exits("crashes", "hung"), calm.generation()), (0, 1));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_panic_ends_one_life_only_and_the_next_has_fresh_state() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let panics = root.child(spec("panics"), Place::Shard(Arc::clone(&shard)), adder());
        let sibling = root.child(spec("sibling"), Place::Shard(shard), adder());
        let mut seen = Seen::start(&root).await;
        add(&panics, 40).await.unwrap();
        add(&sibling, 40).await.unwrap();

        let error = panics.ask(8, LONG, Ask::Panic).await.unwrap_err();
        assert!(matches!(error, AskError::Died { .. }), "{error}");
        let reason = seen.exit_of(panics.path()).await;
        let ExitReason::Panic { message, location, backtrace } = reason else { panic!("{reason}") };
        assert_eq!(message, "boom in handler");
        assert!(location.contains("supervision/tests/mod.rs:") && backtrace.is_some());
        seen.started(&panics, 2).await;
        assert_eq!(add(&panics, 1).await, Ok(1), "the same reference, another life");

        panics.ask(8, LONG, Ask::PanicLater).await.unwrap_err();
        seen.started(&panics, 3).await;
        assert_eq!((panics.restarts(), panics.generation()), (2, 3));
        assert_eq!((add(&sibling, 1).await, sibling.generation()), (Ok(41), 1));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_failure_that_the_actor_reports_itself_keeps_its_reason() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let actor = root.child(spec("a"), Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        actor.tell(Ask::Fail("out of sorts", Disposition::RebuildActor)).unwrap();
        let reason = seen.exit_of(actor.path()).await;
        assert_eq!(reason.to_string(), "failed: out of sorts");
        seen.started(&actor, 2).await;
        let status = seen.tree.status();
        let place = status.find(actor.path()).unwrap();
        assert_eq!((place.last_exit.clone(), place.restarts), (Some(reason), 1));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_panic_in_stopped_is_seen_and_ends_nothing_else() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let factory = adder_that(OnStop::Panic, Arc::default());
        let actor = root.child(spec("a"), Place::Shard(Arc::clone(&shard)), factory);
        let sibling = root.child(spec("b"), Place::Shard(shard), adder());
        let mut seen = Seen::start(&root).await;
        seen.tree.inject(actor.path(), Fault::Exit).await.unwrap();
        let reason = seen.exit_of(actor.path()).await;
        assert!(reason.to_string().ends_with("panic in stopped"), "{reason}");
        seen.started(&actor, 2).await;
        // After a panic nothing more of the actor is called, so that this is no second panic.
        actor.ask(8, LONG, Ask::Panic).await.unwrap_err();
        let reason = seen.exit_of(actor.path()).await;
        assert!(reason.to_string().ends_with("boom in handler"), "{reason}");
        seen.started(&actor, 3).await;
        assert_eq!(add(&sibling, 1).await, Ok(1));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_panic_in_a_destructor_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("panic in drop");
        }
    }
    struct Armed {
        _bomb: Bomb,
    }
    impl Actor for Armed {
        type Context = Context<Self>;
    }
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let armed = root.child(spec("a"), Place::Control, |_, _| Armed { _bomb: Bomb });
        let mut seen = Seen::start(&root).await;
        seen.tree.inject(armed.path(), Fault::Exit).await.unwrap();
        let reason = seen.exit_of(armed.path()).await;
        assert!(reason.to_string().ends_with("panic in drop"), "{reason}");
        let started = |event: &Event| event.kind == EventKind::Started;
        seen.until(armed.path(), started).await;
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_factory_that_panics_counts_as_a_crash_and_is_tried_again() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let tries = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&tries);
        let shard = Shard::new("shard-0");
        let actor = root.child(spec("a"), Place::Shard(shard), move |ctx, seat| {
            let before = counted.fetch_add(1, Ordering::SeqCst);
            assert!(before >= 2, "not yet");
            adder()(ctx, seat)
        });
        let mut seen = Seen::start(&root).await;
        while actor.generation() < 3 {
            seen.started(&actor, 3).await;
        }
        assert_eq!((add(&actor, 1).await, tries.load(Ordering::SeqCst)), (Ok(1), 3));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn the_end_of_a_thread_is_seen_and_its_actors_live_on_another() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let shard = Shard::new("shard-0");
        let actor = root.child(spec("a"), Place::Shard(Arc::clone(&shard)), adder());
        let mut seen = Seen::start(&root).await;
        let (reply, answer) = actor.open::<u64>(1).unwrap();
        actor.tell(Ask::Owe(reply)).unwrap();
        shard.stop();
        assert!(matches!(answer.await, Err(AskError::Died { .. })));
        assert_eq!(seen.exit_of(actor.path()).await, ExitReason::Killed);
        seen.started(&actor, 2).await;
        assert_eq!(add(&actor, 1).await, Ok(1));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_transient_child_that_ends_normally_stays_down_and_says_so() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let spec = ChildSpec { restart: Restart::Transient, ..spec("a") };
        let actor = root.child(spec, Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        seen.tree.inject(actor.path(), Fault::Panic("first".to_owned())).await.unwrap();
        seen.started(&actor, 2).await;
        seen.tree.inject(actor.path(), Fault::Exit).await.unwrap();
        assert_eq!(seen.exit_of(actor.path()).await, ExitReason::Normal);
        let refused = actor.admit(1).unwrap_err();
        assert_eq!((refused.retry_after(), actor.state()), (None, State::Stopped), "{refused}");
        seen.tree.shutdown().await.unwrap();
    });
}

/// Goal: crashes leave nothing behind. Method: 200 panics in a row at each of two places, then a
/// count of threads, of places in the tree, and of requests under way.
#[test]
fn a_storm_of_panics_leaks_neither_threads_nor_room() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 1_000));
        let quick = Backoff { min: Duration::ZERO, max: Duration::ZERO, jitter: 0.0 };
        let spec = |name| ChildSpec { backoff: quick, ..spec(name) };
        let shard = Shard::new("shard-0");
        let here = root.child(spec("here"), Place::Control, adder());
        let there = root.child(spec("there"), Place::Shard(shard), adder());
        let mut seen = Seen::start(&root).await;
        let (places, threads_before) = (seen.tree.status().len(), threads());
        for crash in 1..=200 {
            for actor in [&here, &there] {
                actor.ask(100, LONG, Ask::Panic).await.unwrap_err();
                seen.started(actor, crash + 1).await;
            }
        }
        assert_eq!((here.restarts(), there.restarts()), (200, 200));
        assert_eq!((here.in_flight(), there.in_flight()), (0, 0));
        assert_eq!((add(&here, 1).await, add(&there, 1).await), (Ok(1), Ok(1)));
        assert_eq!(seen.tree.status().len(), places);
        // Other tests run beside this one and have threads of their own.
        assert!(threads() < threads_before + 100, "{threads_before} became {}", threads());
        seen.tree.shutdown().await.unwrap();
    });
}
