//! What a caller is told: nothing was done, or nobody knows, and never the one for the other.

use super::*;

#[test]
fn an_answer_comes_back_from_either_place_and_from_any_runtime() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let here = root.child(spec("here"), Place::Control, adder());
        let there = root.child(spec("there"), Place::Shard(Shard::new("shard-0")), adder());
        let seen = Seen::start(&root).await;
        assert_eq!((add(&here, 2).await, add(&there, 3).await), (Ok(2), Ok(3)));
        let elsewhere = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move { add(&there, 4).await })
        });
        let answer = tokio::task::spawn_blocking(|| elsewhere.join().unwrap()).await.unwrap();
        assert_eq!(answer, Ok(7));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn admission_is_bounded_by_count_and_room_returns_with_the_answer() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let admission = Admission { messages_max: 2, bytes_max: 1 << 20 };
        let actor = root.child(ChildSpec { admission, ..spec("a") }, Place::Control, adder());
        let seen = Seen::start(&root).await;
        let (first, first_answer) = actor.open::<u64>(1).unwrap();
        let (second, _second_answer) = actor.open::<u64>(1).unwrap();
        let refused = actor.open::<u64>(1).unwrap_err();
        assert!(matches!(refused, Refused::Overloaded { what: Load::Messages, .. }), "{refused}");
        assert_eq!((actor.in_flight(), actor.refused()), (2, 1));
        assert!(!second.is_awaited() || actor.open::<u64>(1).is_err());
        drop(second);
        actor.tell(Ask::Add(5, first)).unwrap();
        assert_eq!(first_answer.await, Ok(5));
        assert_eq!(actor.in_flight(), 0);
        assert_eq!(add(&actor, 1).await, Ok(6));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn admission_is_bounded_by_bytes_yet_one_large_request_passes_alone() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let admission = Admission { messages_max: 100, bytes_max: 1_000 };
        let actor = root.child(ChildSpec { admission, ..spec("a") }, Place::Control, adder());
        let seen = Seen::start(&root).await;
        let large = actor.admit(5_000).unwrap();
        let refused = actor.admit(1).unwrap_err();
        assert!(matches!(refused, Refused::Overloaded { what: Load::Bytes, .. }), "{refused}");
        drop(large);
        let held = [actor.admit(600).unwrap(), actor.admit(400).unwrap()];
        assert!(actor.admit(1).is_err());
        drop(held);
        assert_eq!(actor.admit(1).unwrap().bytes(), 1);
        assert_eq!(actor.in_flight(), 0);
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_full_mailbox_refuses_tells_but_never_completions() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let shard = Shard::new("shard-0");
        let spec = ChildSpec { mailbox_len_max: 4, ..spec("a") };
        let actor = root.child(spec, Place::Shard(shard), adder());
        let seen = Seen::start(&root).await;
        let (reply, blocked) = actor.open(0).unwrap();
        actor.tell(Ask::Block(Duration::from_millis(100), reply)).unwrap();
        let refused = loop {
            if let Err(refused) = actor.tell(Ask::Forget) {
                break refused;
            }
        };
        assert!(matches!(refused, Refused::Overloaded { what: Load::Mailbox, .. }), "{refused}");
        for _ in 0..100 {
            actor.complete(Ask::Forget).unwrap();
        }
        assert_eq!(blocked.await, Ok(0));
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_reply_that_is_dropped_tells_the_asker_that_the_outcome_is_unknown() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let actor = root.child(spec("a"), Place::Control, adder());
        let seen = Seen::start(&root).await;
        let (reply, answer) = actor.open::<u64>(100).unwrap();
        actor.tell(Ask::Owe(reply)).unwrap();
        actor.tell(Ask::Forget).unwrap();
        let error = answer.await.unwrap_err();
        assert!(matches!(error, AskError::Died { .. }) && !error.is_definite(), "{error}");
        assert_eq!(actor.in_flight(), 0, "and its room is free again");
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn a_deadline_leaves_the_outcome_unknown_and_the_request_under_way() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let actor = root.child(spec("a"), Place::Control, adder());
        let seen = Seen::start(&root).await;
        let after = Duration::from_millis(5);
        let error = actor.ask(8, after, Ask::Owe).await.unwrap_err();
        assert_eq!(error, AskError::Deadline { path: actor.path().clone(), after });
        assert_eq!(actor.in_flight(), 1);
        seen.tree.shutdown().await.unwrap();
    });
}

#[test]
fn between_two_lives_callers_are_refused_for_certain_and_told_when_to_return() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let wait = Duration::from_secs(3_600);
        let backoff = Backoff { min: wait, max: wait, jitter: 0.0 };
        let actor = root.child(ChildSpec { backoff, ..spec("a") }, Place::Control, adder());
        let mut seen = Seen::start(&root).await;
        let error = actor.ask(8, LONG, Ask::Panic).await.unwrap_err();
        assert!(matches!(error, AskError::Died { .. }), "{error}");
        let waiting = |event: &Event| matches!(event.kind, EventKind::Restarting { .. });
        seen.until(actor.path(), waiting).await;
        let error = add(&actor, 1).await.unwrap_err();
        let AskError::Refused(Refused::Restarting { retry_after, .. }) = error else {
            panic!("{error}")
        };
        assert!(retry_after > wait / 2 && retry_after <= wait, "{retry_after:?}");
        assert!(error.is_definite() && actor.complete(Ask::Forget).is_err());
        seen.tree.shutdown().await.unwrap();
        let error = add(&actor, 1).await.unwrap_err();
        assert!(matches!(error, AskError::Refused(Refused::Stopped { .. })), "{error}");
    });
}

#[test]
fn a_detached_pair_answers_without_an_actor() {
    on_system(async {
        let (reply, answer) = Reply::detached("test".into());
        reply.send(5);
        assert_eq!(answer.await, Ok(5));
    });
}

/// Goal: the hot path stays cheap. Method: counts allocations of nothing and asserts no time, but
/// passes many requests through one actor and sees that all room is returned.
#[test]
fn a_hundred_thousand_requests_leave_nothing_behind() {
    on_system(async {
        let root = root(plan("node", Strategy::OneForOne, 3));
        let actor = root.child(spec("a"), Place::Shard(Shard::new("shard-0")), adder());
        let seen = Seen::start(&root).await;
        let mut sum = 0;
        for _ in 0..1_000 {
            let answers: Vec<_> = (0..100)
                .map(|_| {
                    let (reply, answer) = actor.open(10).unwrap();
                    actor.tell(Ask::Add(1, reply)).unwrap();
                    answer
                })
                .collect();
            for answer in answers {
                sum += 1;
                assert_eq!(answer.await, Ok(sum), "answers come in the order of the requests");
            }
        }
        // The permit goes after the answer: the last may still be on its way out.
        while actor.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        seen.tree.shutdown().await.unwrap();
    });
}
