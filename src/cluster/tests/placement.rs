//! Where replicas end up, whatever happens to the nodes meanwhile.

use super::*;
use proptest::prelude::*;

fn nodes_of(placement: &Placement) -> BTreeSet<u32> {
    placement.replicas.iter().map(|replica| replica.id.node().0).collect()
}

#[test]
fn the_first_topic_of_a_lone_node_is_spread_as_others_join() {
    let mut world = World::of(1);
    assert_eq!(world.converge(), 0, "there is nobody to share with");
    world.join(2, None);
    world.join(3, None);
    world.converge();
    world.assert_whole();
    assert_eq!(nodes_of(world.catalogue.placement(GroupId::LOG).unwrap()), [1, 2, 3].into());
}

#[test]
fn replicas_and_leaders_are_balanced_and_stay_so_as_nodes_join() {
    let mut world = World::of(3);
    world.catalogue.apply(&create("orders", 30, 3)).unwrap();
    world.converge();
    world.assert_whole();
    world.assert_balanced();
    for number in 4..=6 {
        world.join(number, None);
        world.converge();
        world.assert_whole();
        world.assert_balanced();
    }
    assert_eq!(world.converge(), 0, "what is done stays done");
}

#[test]
fn replicas_are_on_different_racks_where_there_are_enough() {
    let mut world = World::of(0);
    world.catalogue = Catalogue::default();
    let node = node_self(1, Some("a"));
    world.catalogue.apply(&Command::Found { cluster_id: "c1".into(), node }).unwrap();
    for (number, rack) in [(2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c")] {
        world.join(number, Some(rack));
    }
    world.catalogue.apply(&create("orders", 24, 3)).unwrap();
    world.converge();
    for (_, name, _, placement) in world.catalogue.partitions() {
        let rack =
            |replica: &Replica| world.catalogue.nodes[&replica.id.node()].labels["rack"].clone();
        let racks: BTreeSet<_> = placement.replicas.iter().map(rack).collect();
        assert_eq!(racks.len(), 3, "{name} {placement:?}");
    }
    world.assert_balanced();
    world.catalogue.apply(&Command::Leave { node: NodeId(5) }).unwrap();
    world.converge();
    world.assert_whole();
    let on_six = world.loads()[&NodeId(6)].0;
    assert_eq!(on_six, 25, "the last node of its rack takes one of each partition");
}

#[test]
fn a_leaving_node_hands_over_everything_and_is_taken_out() {
    let mut world = World::of(4);
    world.catalogue.apply(&create("orders", 8, 3)).unwrap();
    world.converge();
    world.catalogue.apply(&Command::Leave { node: NodeId(1) }).unwrap();
    world.converge();
    world.assert_whole();
    assert_eq!(world.catalogue.nodes[&NodeId(1)].state, NodeState::Removed);
    assert!(!controller_group(&world.catalogue).iter().any(|r| r.node() == NodeId(1)));
}

#[test]
fn a_leaving_node_goes_also_where_nobody_can_take_its_replicas() {
    let mut world = World::of(3);
    world.converge();
    world.catalogue.apply(&Command::Leave { node: NodeId(1) }).unwrap();
    world.converge();
    assert_eq!(nodes_of(world.catalogue.placement(GroupId::LOG).unwrap()), [2, 3].into());
    assert_eq!(world.catalogue.nodes[&NodeId(1)].state, NodeState::Removed);
}

#[test]
fn a_dead_node_is_not_taken_out_because_it_is_silent() {
    let mut world = World::of(3);
    world.catalogue.apply(&create("orders", 6, 3)).unwrap();
    world.converge();
    world.sight.alive.remove(&NodeId(3));
    world.converge();
    world.assert_whole();
    let leads = world.loads()[&NodeId(3)].1;
    assert_eq!(leads, 0, "it is preferred nowhere while it is away");
    world.sight.alive.insert(NodeId(3));
    world.converge();
    world.assert_balanced();
}

#[test]
fn a_short_silence_changes_nothing() {
    let mut world = World::of(3);
    world.catalogue.apply(&create("orders", 6, 3)).unwrap();
    world.converge();
    world.sight.alive.remove(&NodeId(3));
    world.sight.doubtful.insert(NodeId(3));
    assert_eq!(world.converge(), 0, "it leads on, as far as is known");
    world.sight.doubtful.clear();
    assert!(world.converge() > 0, "a long one does");
}

#[test]
fn a_replica_that_never_came_up_does_not_hold_up_a_leave() {
    let mut world = World::of(2);
    let added = next_step(&world.catalogue, &world.sight).unwrap();
    world.catalogue.apply(&added).unwrap();
    world.catalogue.apply(&Command::Leave { node: NodeId(2) }).unwrap();
    let placement = world.catalogue.placement(GroupId::LOG).unwrap();
    let joining = placement.replicas[1];
    assert_eq!(joining.state, ReplicaState::Joining);
    let drop = Command::DropReplica { group: GroupId::LOG.raw(), replica: joining.id };
    assert_eq!(next_step(&world.catalogue, &world.sight), Some(drop));
}

#[test]
fn a_dead_node_is_given_up_only_where_each_of_its_groups_goes_on() {
    let mut world = World::of(4);
    world.catalogue.apply(&create("orders", 4, 3)).unwrap();
    world.converge();
    world.sight.alive.remove(&NodeId(4));
    world.sight.given_up.insert(NodeId(4));
    world.converge();
    world.assert_whole();
    assert_eq!(world.catalogue.nodes[&NodeId(4)].state, NodeState::Removed);
    world.sight.alive.remove(&NodeId(3));
    world.sight.alive.remove(&NodeId(2));
    world.sight.given_up.extend([NodeId(2), NodeId(3)]);
    assert_eq!(world.converge(), 0, "one of three is no majority");
    assert_eq!(world.catalogue.nodes[&NodeId(3)].state, NodeState::Active);
    let lost = lost_without(&world.catalogue, NodeId(3), &world.sight.alive);
    assert_eq!(lost.len(), 6, "five partitions and the controller: {lost:?}");
}

#[test]
fn nobody_alive_leaves_a_group_that_needs_them() {
    let mut world = World::of(3);
    world.converge();
    world.catalogue.apply(&Command::Leave { node: NodeId(2) }).unwrap();
    world.sight.alive.remove(&NodeId(3));
    world.converge();
    let placement = world.catalogue.placement(GroupId::LOG).unwrap();
    assert_eq!(nodes_of(placement), [1, 2, 3].into(), "1 alone is no majority of 1 and 3");
    world.sight.alive.insert(NodeId(3));
    world.converge();
    assert_eq!(world.catalogue.nodes[&NodeId(2)].state, NodeState::Removed);
}

#[test]
fn a_smaller_replication_factor_takes_replicas_away_one_by_one() {
    let mut world = World::of(5);
    world.catalogue.apply(&create("orders", 10, 5)).unwrap();
    world.converge();
    let settings = TopicSettings::default();
    let alter = Command::AlterTopic {
        name: topic("orders"),
        partitions: None,
        replication_factor: Some(1),
        settings,
    };
    world.catalogue.apply(&alter).unwrap();
    world.converge();
    world.assert_whole();
    world.assert_balanced();
}

#[test]
fn what_is_planned_ahead_is_taken_step_by_step() {
    let mut world = World::of(3);
    world.catalogue.apply(&create("orders", 40, 1)).unwrap();
    let settings = TopicSettings::default();
    let (name, partitions) = (topic("orders"), None);
    let replication_factor = Some(3);
    let alter = Command::AlterTopic { name, partitions, replication_factor, settings };
    world.catalogue.apply(&alter).unwrap();
    let steps = plan(&world.catalogue, &world.sight, 1_000);
    assert_eq!(steps.len(), 64, "no more replicas are brought up at a time: {steps:?}");
    for step in &steps {
        world.catalogue.apply(step).unwrap();
    }
    world.converge();
    world.assert_whole();
}

#[derive(Debug, Clone)]
enum Event {
    Join(Option<&'static str>),
    Die(u32),
    Return(u32),
    Leave(u32),
    GiveUp(u32),
    Create(u32, u32),
    Steps(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]).prop_map(Event::Join),
        2 => (1..9u32).prop_map(Event::Die),
        3 => (1..9u32).prop_map(Event::Return),
        1 => (1..9u32).prop_map(Event::Leave),
        1 => (1..9u32).prop_map(Event::GiveUp),
        2 => (1..6u32, 1..5u32).prop_map(|(partitions, factor)| Event::Create(partitions, factor)),
        3 => (0..20usize).prop_map(Event::Steps),
    ];
    prop::collection::vec(event, 1..30)
}

fn happen(world: &mut World, number: u32, event: Event) {
    match event {
        Event::Join(rack) => world.join(100 + number, rack),
        Event::Die(node) => drop(world.sight.alive.remove(&NodeId(node))),
        Event::Return(node) => {
            let state = world.catalogue.nodes.get(&NodeId(node)).map(|node| node.state);
            if state.is_some_and(|state| state != NodeState::Removed) {
                world.sight.alive.insert(NodeId(node));
            }
        }
        // The catalogue refuses what would leave nobody.
        Event::Leave(node) => drop(world.catalogue.apply(&Command::Leave { node: NodeId(node) })),
        Event::GiveUp(node) => drop(world.sight.given_up.insert(NodeId(node))),
        Event::Create(partitions, factor) => {
            let absent: Vec<_> = world.catalogue.nodes.keys().copied().collect();
            let absent: Vec<_> =
                absent.into_iter().filter(|id| !world.sight.alive.contains(id)).collect();
            let command = create(&format!("t{number}"), partitions, factor);
            world.catalogue.apply_avoiding(&command, &absent).unwrap();
        }
        Event::Steps(steps) => {
            for step in plan(&world.catalogue, &world.sight, steps) {
                world.catalogue.apply(&step).unwrap();
            }
            world.groups_follow();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_groups_keep_their_majorities_and_everything_is_whole_in_the_end(
        events in events(),
    ) {
        let mut world = World::of(2);
        world.converge();
        for (number, event) in (0..).zip(events) {
            happen(&mut world, number, event);
            prop_assert_eq!(world.catalogue.fault(), None);
            world.groups_begin();
            let able = world.able_groups();
            let mut still = world.clone();
            still.converge();
            let after = still.able_groups();
            prop_assert!(able.iter().all(|group| after.contains(group)));
        }
        let back = world.catalogue.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed);
        world.sight.alive = back.map(|(id, _)| *id).collect();
        world.converge();
        world.assert_whole();
        prop_assert_eq!(world.converge(), 0);
    }
}
