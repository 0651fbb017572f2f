//! Groups, nesting, quarantine, and what operators do to a running tree.

use super::*;

fn quarantining(name: &'static str, strategy: Strategy, restarts_max: u32) -> SupervisorSpec {
    SupervisorSpec { exhausted: Exhausted::Quarantine, ..plan(name, strategy, restarts_max) }
}

#[test]
fn children_stop_in_reverse_order_through_all_levels() {
    on_system(async {
        let stops = Arc::new(Mutex::new(Vec::new()));
        let factory = || adder_that(OnStop::Obey, Arc::clone(&stops));
        let root = root(plan("node", Strategy::OneForOne, 3));
        let first = root.child(spec("first"), Place::Control, factory());
        let middle = root.supervisor(plan("middle", Strategy::RestForOne, 3));
        let shard = Shard::new("shard-0");
        let log = middle.child(spec("log"), Place::Shard(Arc::clone(&shard)), factory());
        let raft = middle.child(spec("raft"), Place::Shard(shard), factory());
        let last = root.child(spec("last"), Place::Control, factory());
        let mut seen = Seen::start(&root).await;
        let births = |event: &&Event| event.kind == EventKind::Started;
        let born: Vec<_> =
            seen.events.iter().filter(births).map(|event| event.path.to_string()).collect();
        assert_eq!(
            born,
            [
                "node/first",
                "node/middle/log",
                "node/middle/raft",
                "node/middle",
                "node/last",
                "node"
            ]
        );
        seen.tree.shutdown().await.unwrap();
        let order = [&last, &raft, &log, &first].map(|actor| actor.path().to_string());
        assert_eq!(*stops.lock().unwrap(), order);
        assert_eq!(seen.tree.outcome().await, Ok(()));
        seen.catch_up();
        assert_eq!(seen.tree.status().state, State::Stopped);
        assert_eq!(seen.tree.restart(first.path()).await, Err(TreeError::Ended));
    });
}

#[test]
fn who_waits_for_its_turn_to_start_is_starting() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let first = root.supervisor(plan("first", Strategy::OneForOne, 3));
        let gate = Arc::new(std::sync::Barrier::new(2));
        let (shut, build) = (Arc::clone(&gate), adder());
        let slow =
            first.child(spec("slow"), Place::Shard(Shard::new("shard-0")), move |ctx, seat| {
                shut.wait();
                build(ctx, seat)
            });
        let last = root.supervisor(plan("last", Strategy::OneForOne, 3));
        let waiting = last.child(spec("waiting"), Place::Control, adder());
        let tree = root.start();
        while slow.generation() == 0 {
            tokio::task::yield_now().await;
        }
        // Not "stopped": whoever asks is to come back.
        assert_eq!(waiting.state(), State::Starting);
        let refused = waiting.admit(1).unwrap_err();
        assert!(matches!(refused, Refused::Restarting { .. }), "{refused}");
        gate.wait();
        tree.ready().await.unwrap();
        assert_eq!(waiting.state(), State::Running);
        tree.shutdown().await.unwrap();
    });
}

#[test]
fn rest_for_one_renews_those_after_and_not_those_before() {
    on_system(async {
        let root = root(plan("node", Strategy::RestForOne, 9));
        let names = ["a", "b", "c"];
        let [a, b, c] = names.map(|name| root.child(spec(name), Place::Control, adder()));
        let mut seen = Seen::start(&root).await;
        b.ask(8, LONG, Ask::Panic).await.unwrap_err();
        seen.started(&c, 2).await;
        assert_eq!((a.generation(), b.generation(), c.generation()), (1, 2, 2));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn one_for_all_renews_everyone() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForAll, 9));
        let names = ["a", "b", "c"];
        let [a, b, c] = names.map(|name| root.child(spec(name), Place::Control, adder()));
        let mut seen = Seen::start(&root).await;
        b.ask(8, LONG, Ask::Panic).await.unwrap_err();
        seen.started(&c, 2).await;
        assert_eq!((a.generation(), b.generation(), c.generation()), (2, 2, 2));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_nested_supervisor_that_gives_up_is_restarted_by_its_parent_and_then_ends_the_tree() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 1));
        let backoff = Backoff { min: Duration::from_millis(1), ..Backoff::DEFAULT };
        let inner =
            root.supervisor(SupervisorSpec { backoff, ..plan("inner", Strategy::OneForOne, 1) });
        let actor = inner.child(spec("a"), Place::Control, adder());
        let bystander = root.child(spec("b"), Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        // Two crashes are one too many for the inner; twice that is one too many for the root.
        for life in 2..=4 {
            actor.ask(8, LONG, Ask::Panic).await.unwrap_err();
            seen.started(&actor, life).await;
        }
        assert_eq!((actor.restarts(), bystander.restarts()), (3, 0));
        actor.ask(8, LONG, Ask::Panic).await.unwrap_err();
        let escalation = seen.tree.outcome().await.unwrap_err();
        assert_eq!(escalation.path, *actor.path());
        assert!(escalation.reason.contains("boom in handler"), "{escalation}");
        seen.catch_up();
        let gave_up: Vec<_> = seen
            .events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Escalated { .. }))
            .map(|event| event.path.as_str())
            .collect();
        assert_eq!(gave_up, ["node/inner", "node/inner", "node"]);
        let error = add(&bystander, 1).await.unwrap_err();
        assert!(matches!(error, AskError::Refused(Refused::Stopped { .. })), "{error}");
        assert_eq!(seen.tree.shutdown().await, Err(escalation));
    });
}

#[test]
fn a_partition_whose_restarts_are_spent_is_quarantined_and_the_rest_serves() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 0));
        let partitions = root.supervisor(plan("partitions", Strategy::OneForOne, 0));
        let bad = partitions.supervisor(quarantining("bad/0", Strategy::RestForOne, 2));
        let log = bad.child(spec("log"), Place::Control, adder());
        let raft = bad.child(spec("raft"), Place::Control, adder());
        let good = partitions.supervisor(quarantining("good/0", Strategy::RestForOne, 2));
        let other = good.child(spec("log"), Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        for life in 2..=3 {
            log.ask(8, LONG, Ask::Panic).await.unwrap_err();
            seen.started(&raft, life).await;
        }
        log.ask(8, LONG, Ask::Panic).await.unwrap_err();
        let left = |event: &Event| matches!(event.kind, EventKind::Quarantined { .. });
        seen.until(bad.path(), left).await;
        for actor in [&log, &raft] {
            let refused = actor.admit(1).unwrap_err();
            let Refused::Quarantined { reason, since, .. } = &refused else { panic!("{refused}") };
            assert!(reason.contains("boom in handler") && since.0 > 0, "{refused}");
        }
        assert_eq!(add(&other, 1).await, Ok(1));
        let status = seen.tree.status();
        let place = status.find(bad.path()).unwrap();
        assert!(matches!(place.state, State::Quarantined { .. }), "{place:?}");
        assert_eq!(status.find(good.path()).unwrap().state, State::Running);
        let refused = seen.tree.restart(log.path()).await.unwrap_err();
        assert!(matches!(refused, TreeError::NotNow { verb: "restart", .. }), "{refused}");

        seen.tree.release(raft.path()).await.unwrap();
        seen.started(&raft, 4).await;
        assert_eq!((add(&log, 1).await, add(&raft, 1).await), (Ok(1), Ok(1)));
        assert_eq!(seen.tree.status().find(bad.path()).unwrap().state, State::Running);
        let refused = seen.tree.release(bad.path()).await.unwrap_err();
        assert!(matches!(refused, TreeError::NotNow { verb: "release", .. }), "{refused}");
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_failure_that_forbids_a_restart_quarantines_at_once_or_climbs_to_who_can() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let domain = root.supervisor(quarantining("domain", Strategy::OneForAll, 9));
        let inner = domain.supervisor(plan("inner", Strategy::OneForOne, 9));
        let actor = inner.child(spec("log"), Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        actor.tell(Ask::Fail("the disk lies", Disposition::Quarantine)).unwrap();
        let left = |event: &Event| matches!(event.kind, EventKind::Quarantined { .. });
        seen.until(domain.path(), left).await;
        let refused = actor.admit(1).unwrap_err();
        let Refused::Quarantined { reason, .. } = &refused else { panic!("{refused}") };
        assert!(reason.contains("node/domain/inner/log failed: the disk lies"), "{reason}");
        assert_eq!((actor.restarts(), seen.tree.status().state), (0, State::Running));
        seen.tree.release(domain.path()).await.unwrap();
        seen.started(&actor, 2).await;
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn an_operator_takes_one_independent_child_out_of_service_and_back() {
    on_system(async {
        let root = root(quarantining("node", Strategy::OneForOne, 9));
        let [a, b] = ["a", "b"].map(|name| root.child(spec(name), Place::Control, adder()));
        let mut seen = Seen::start(&root).await;
        seen.tree.quarantine(a.path(), "under repair").await.unwrap();
        let refused = a.admit(1).unwrap_err();
        assert!(refused.to_string().contains("under repair"), "{refused}");
        assert_eq!(seen.exit_of(a.path()).await, ExitReason::Normal);
        assert_eq!(add(&b, 1).await, Ok(1));
        seen.tree.release(a.path()).await.unwrap();
        seen.started(&a, 2).await;
        assert_eq!(add(&a, 1).await, Ok(1));
        seen.tree.restart(a.path()).await.unwrap();
        seen.started(&a, 3).await;
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn children_come_and_go_at_run_time_and_generations_never_repeat() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let partitions = root.supervisor(plan("partitions", Strategy::OneForOne, 9));
        let mut seen = Seen::start(&root).await;
        let partitions = seen.tree.supervisor(partitions.path()).unwrap();
        let mut generation = 0;
        for _ in 0..3 {
            let one = partitions.supervisor(plan("orders/0", Strategy::RestForOne, 9));
            let log = one.child(spec("log"), Place::Control, adder());
            seen.started(&log, generation + 1).await;
            log.ask(8, LONG, Ask::Panic).await.unwrap_err();
            seen.started(&log, generation + 2).await;
            assert_eq!(add(&log, 1).await, Ok(1));
            let taken = partitions.try_supervisor(plan("orders/0", Strategy::OneForOne, 1));
            assert!(matches!(taken, Err(TreeError::Exists { .. })));
            seen.tree.remove(one.path()).await.unwrap();
            assert_eq!(seen.tree.status().find(log.path()), None);
            assert!(matches!(add(&log, 1).await, Err(AskError::Refused(Refused::Stopped { .. }))));
            generation += 2;
        }
        let unknown = seen.tree.remove(&"node/nothing".into()).await.unwrap_err();
        assert!(matches!(unknown, TreeError::Unknown { .. }), "{unknown}");
        assert!(seen.tree.remove(root.path()).await.is_err(), "the root stays");
        assert_eq!(seen.tree.status().len(), 2);
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_crash_of_one_child_does_not_wait_for_the_backoff_of_another() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 9));
        let hour = Duration::from_secs(3_600);
        let slow = Backoff { min: hour, max: hour, jitter: 0.0 };
        let slow = root.child(ChildSpec { backoff: slow, ..spec("slow") }, Place::Control, adder());
        let quick = root.child(spec("quick"), Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        slow.ask(8, LONG, Ask::Panic).await.unwrap_err();
        quick.ask(8, LONG, Ask::Panic).await.unwrap_err();
        seen.started(&quick, 2).await;
        assert!(matches!(slow.state(), State::Restarting { .. }));
        seen.tree.restart(slow.path()).await.unwrap();
        seen.started(&slow, 2).await;
        seen.tree.shutdown().await.unwrap();
    });
}

/// Goal: the supervisors' own death is no silence. Method: a clock that panics under them.
#[test]
fn a_tree_whose_own_task_dies_says_so() {
    use crate::model::{Clock, Timestamp};
    use std::sync::atomic::AtomicBool;

    #[derive(Debug, Default)]
    struct Mine {
        is_armed: AtomicBool,
    }
    impl Clock for Mine {
        fn monotonic(&self) -> Duration {
            assert!(!self.is_armed.load(Ordering::SeqCst), "the clock stands");
            Duration::ZERO
        }
        fn wall(&self) -> Timestamp {
            Timestamp(0)
        }
    }

    on_system(async {
        let clock = Arc::new(Mine::default());
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let hub = Hub::new(logger.clone(), None, HubLimits::default());
        let clock_too = Arc::clone(&clock) as _;
        let environment = Environment { clock: clock_too, seed: 7, logger, hub, crashes: None };
        let root = Supervisor::new(plan("node", Strategy::OneForOne, 9), environment);
        let actor = root.child(spec("a"), Place::Control, adder());
        let seen = Seen::start(&root).await;
        clock.is_armed.store(true, Ordering::SeqCst);
        // Answered or not: the tree dies of it either way.
        seen.tree.inject(actor.path(), Fault::Exit).await.ok();
        let escalation = seen.tree.outcome().await.unwrap_err();
        assert!(escalation.reason.contains("the task that runs the tree ended"), "{escalation}");
        assert_eq!(actor.state(), State::Stopped);
        let refused = seen.tree.inject(actor.path(), Fault::Exit).await;
        assert_eq!(refused, Err(TreeError::Ended));
    });
}
