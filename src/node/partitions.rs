//! The replicas of this node: which it holds, and how that follows the catalogue. What it was given
//! is recorded before the first byte of it is written, and started again before anybody is heard of.

use super::files::{self, Mark};
use super::partition::{Partition, PartitionPlan, Soil};
use super::supervisor;
use crate::actors::absent::{self, AbsentActor};
use crate::actors::handle::PartitionHandle;
use crate::actors::partition::PartitionState;
use crate::cluster::{Catalogue, Hosted, Placement, ReplicaState, TopicSettings};
use crate::model::{Disposition, FIRST_TOPIC, GroupId, NodeId, ReplicaId, TopicName};
use crate::ops::data_dir::{DataDir, DataDirError, ReplicaRecord, Replicas, remove_empty};
use crate::supervision::{
    ActorPath, Exhausted, Place, Strategy, Supervisor, TreeError, TreeHandle,
};
use arc_swap::ArcSwap;
use slog::{Logger, info, o, warn};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a replica may take to close its log before it is left for a later try.
const CLOSE_MAX: Duration = Duration::from_secs(30);
/// Directories of new replicas that are made at a time.
const PREPARED_AT_ONCE: usize = 16;
const CLOSE_LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Why the node's replicas are not what the catalogue says.
#[derive(Debug, thiserror::Error)]
pub enum PlantError {
    /// The record of replicas cannot be read or written.
    #[error(transparent)]
    Record(#[from] DataDirError),
    /// A replica's directory cannot be made or removed.
    #[error("the directory of {replica} cannot be changed")]
    Directory {
        /// Whose.
        replica: String,
        /// What the system said.
        source: io::Error,
    },
    /// The tree has ended, or the name is taken.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A log was not closed in time: what is left to be done waits until it is.
    #[error("{replica} did not close its log within {}s", CLOSE_MAX.as_secs())]
    Closing {
        /// Whose.
        replica: String,
    },
}

impl PlantError {
    /// Who must act: the node tries again by itself.
    pub fn disposition(&self) -> Disposition {
        Disposition::RebuildActor
    }
}

/// The replicas of a node. Cheap to clone; callable from any thread.
#[derive(Debug, Clone)]
pub struct Partitions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    soil: Soil,
    data_dir: Arc<DataDir>,
    parent: Supervisor,
    registry: Registry,
    /// What is recorded; held while it changes, so that one change follows another.
    record: tokio::sync::Mutex<Replicas>,
    logger: Logger,
}

/// What is here, for those who only look: also what lives on the shard itself may hold this, and not
/// what plants, which holds the shard.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry(Arc<ArcSwap<Table>>);

type Table = BTreeMap<TopicName, BTreeMap<u32, Arc<Local>>>;

/// A replica that the node was given.
#[derive(Debug)]
pub(super) struct Local {
    pub plan: PartitionPlan,
    pub growth: Growth,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Growth {
    /// It was started.
    Planted(Partition),
    /// It must not start: where it is told, and why.
    Absent(ActorPath, String),
}

impl Local {
    /// The replica at work.
    pub fn planted(&self) -> Option<&Partition> {
        match &self.growth {
            Growth::Planted(partition) => Some(partition),
            Growth::Absent(..) => None,
        }
    }

    /// What it is doing, and why where it is not serving.
    pub fn state(&self) -> (PartitionState, String) {
        match &self.growth {
            Growth::Planted(partition) => partition.handle.state(),
            Growth::Absent(_, reason) => (PartitionState::Quarantined, reason.clone()),
        }
    }
}

impl Partitions {
    /// Starts what the node was given earlier. Blocks: it is called before anything runs.
    ///
    /// # Errors
    /// The record cannot be read.
    pub(super) fn plant_recorded(
        root: &Supervisor,
        soil: Soil,
        data_dir: Arc<DataDir>,
    ) -> Result<Self, DataDirError> {
        let record = data_dir.replicas()?;
        let settings = Arc::clone(&soil.settings);
        let spec = supervisor("partitions", Strategy::OneForOne, Exhausted::Escalate, &settings);
        let parent = root.supervisor(spec);
        let logger = soil.logger.new(o!("actor" => parent.path().to_string()));
        let mut table = Table::new();
        for known in &record.replicas {
            let plan = plan_of(known);
            let local = recover(&parent, &soil, plan);
            table.entry(known.topic.clone()).or_default().insert(known.partition, local);
        }
        let registry = Registry(Arc::new(ArcSwap::from_pointee(table)));
        let record = tokio::sync::Mutex::new(record);
        Ok(Self(Arc::new(Inner { soil, data_dir, parent, registry, record, logger })))
    }

    /// Makes the first partition of a node that begins alone, or takes over that of a node from
    /// before there were clusters. Blocks: it is called before anything runs.
    ///
    /// # Errors
    /// It cannot be recorded.
    pub(super) fn found(&self) -> Result<(), DataDirError> {
        let mut record = self.0.record.try_lock().expect("nothing runs yet");
        if record.seen_incarnation >= ReplicaId::FIRST.incarnation() {
            return Ok(());
        }
        let first = ReplicaRecord {
            group: GroupId::LOG,
            topic: TopicName::new(FIRST_TOPIC).expect("a valid name"),
            partition: 0,
            replica: ReplicaId::FIRST,
            founders: vec![ReplicaId::FIRST],
            settings: BTreeMap::new(),
        };
        let Inner { soil, parent, .. } = &*self.0;
        let plan = plan_of(&first);
        let directory = plan.directory(&soil.settings);
        files::refuse_links(&soil.settings.data_dir, &directory)
            .map_err(|source| DataDirError::at(directory.clone(), source))?;
        // A disk that takes no mark takes no log either: the log's actor tells that best.
        let marked = Mark::new(first.group, first.replica).write(&*soil.disk, &directory);
        if let Err(error) = &marked {
            warn!(self.0.logger, "a replica's directory cannot be marked"; "error" => %error);
            self.0.registry.put(&first.topic, 0, plant(parent, soil, plan));
            return Ok(());
        }
        let next = Replicas {
            seen_incarnation: first.replica.incarnation(),
            replicas: vec![first.clone()],
        };
        self.0.data_dir.set_replicas(&next)?;
        *record = next;
        self.0.registry.put(&first.topic, 0, plant(parent, soil, plan));
        Ok(())
    }

    /// A partition that is here and was started.
    pub fn get(&self, topic: &str, partition: u32) -> Option<PartitionHandle> {
        self.0.registry.get(topic, partition)
    }

    /// All that the node was given: topic, partition and which replica.
    pub fn list(&self) -> Vec<(TopicName, u32, ReplicaId)> {
        let all = self.0.registry.all();
        all.into_iter().map(|(topic, partition, local)| (topic, partition, local.plan.me)).collect()
    }

    /// What is here, for those who only look.
    pub(super) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Makes the node's replicas those that the catalogue gives it: plants what is new, uproots and
    /// deletes what is not listed any more, starts again what has other settings, and tells each
    /// group who is to belong to it.
    ///
    /// A catalogue may be an old one, read on the way to the newest: what is newer than it stays,
    /// and what was dropped since is not made again.
    ///
    /// # Errors
    /// What could not be done; the rest is, and a second call does what is left.
    pub async fn follow(&self, catalogue: &Catalogue, me: NodeId) -> Result<(), PlantError> {
        if catalogue.cluster_id.is_empty() {
            return Ok(());
        }
        let mut record = self.0.record.lock().await;
        let wanted: BTreeMap<ReplicaId, Hosted<'_>> =
            catalogue.hosted_by(me).map(|hosted| (hosted.replica.id, hosted)).collect();
        let mut failed = Ok(());
        for (topic, partition, local) in self.0.registry.all() {
            let done = match wanted.get(&local.plan.me) {
                None if local.plan.me.incarnation() > catalogue.last_incarnation => Ok(()),
                None => {
                    let done = self.drop_replica(&mut record, &topic, partition, &local).await;
                    // Where others go on with the group, this node was told once who leads it.
                    if done.is_ok() && catalogue.placement(local.plan.group).is_none() {
                        self.0.soil.leadership.forget(local.plan.group);
                    }
                    done
                }
                Some(hosted) if *hosted.settings != local.plan.settings => {
                    self.resettle(&mut record, &topic, partition, &local, hosted.settings).await
                }
                Some(_) => Ok(()),
            };
            failed = failed.and(done);
        }
        let is_new =
            |hosted: &&Hosted<'_>| hosted.replica.id.incarnation() > record.seen_incarnation;
        let new: Vec<PartitionPlan> =
            wanted.values().filter(is_new).map(|hosted| plan_from(hosted, catalogue)).collect();
        // What could not be closed keeps its files: nothing is put in its place, and nothing newer is
        // recorded as seen before that is.
        let is_taken = |plan: &PartitionPlan| {
            let place = plan.place.as_ref();
            place.is_some_and(|(topic, n)| self.0.registry.local(topic.as_str(), *n).is_some())
        };
        if !new.is_empty() && !new.iter().any(is_taken) {
            failed = failed.and(self.add(&mut record, catalogue.last_incarnation, new).await);
        }
        drop(record);
        for (_, _, local) in self.0.registry.all() {
            if let (Some(_), Some(placement)) =
                (local.planted(), catalogue.placement(local.plan.group))
            {
                self.desire(local.plan.group, placement);
            }
        }
        failed
    }

    /// Tells a replica who is to belong to its group.
    fn desire(&self, group: GroupId, placement: &Placement) {
        if let Some(here) = self.0.soil.groups.get(group) {
            here.desire(placement.wanted());
        }
    }

    /// Marks, records, then plants.
    async fn add(
        &self,
        record: &mut Replicas,
        seen_incarnation: u32,
        new: Vec<PartitionPlan>,
    ) -> Result<(), PlantError> {
        let Inner { soil, data_dir, parent, .. } = &*self.0;
        let mut next = record.clone();
        next.seen_incarnation = next.seen_incarnation.max(seen_incarnation);
        next.replicas.extend(new.iter().filter_map(record_of));
        let (soil_of_disk, dir, plans) = (soil.clone(), Arc::clone(data_dir), new.clone());
        let written = next.clone();
        blocking(move || {
            prepare_all(&soil_of_disk, &plans)?;
            Ok(dir.set_replicas(&written)?)
        })
        .await?;
        *record = next;
        let mut table = Table::clone(&self.0.registry.0.load());
        for plan in new {
            let Some((topic, partition)) = plan.place.clone() else { continue };
            info!(self.0.logger, "a replica was given to this node"; "partition" => plan.name(),
                "replica" => %plan.me);
            let local = plant(parent, soil, plan);
            table.entry(topic).or_default().insert(partition, local);
        }
        // All at once: one by one would copy the table for each of a thousand.
        self.0.registry.0.store(Arc::new(table));
        Ok(())
    }

    /// Uproots a replica, deletes its files, and forgets it.
    async fn drop_replica(
        &self,
        record: &mut Replicas,
        topic: &TopicName,
        partition: u32,
        local: &Arc<Local>,
    ) -> Result<(), PlantError> {
        info!(self.0.logger, "a replica leaves this node"; "partition" => local.plan.name(),
            "replica" => %local.plan.me);
        self.uproot(topic, partition, local).await?;
        let Inner { soil, data_dir, .. } = &*self.0;
        let mut next = record.clone();
        next.replicas.retain(|known| known.replica != local.plan.me);
        let (soil, dir, written) = (soil.clone(), Arc::clone(data_dir), next.clone());
        let (directory, name) = (local.plan.directory(&soil.settings), local.plan.name());
        blocking(move || {
            files::refuse_links(&soil.settings.data_dir, &directory)
                .and_then(|()| files::wipe(&*soil.disk, &directory))
                .map_err(|source| PlantError::Directory { replica: name, source })?;
            remove_empty(&directory);
            Ok(dir.set_replicas(&written)?)
        })
        .await?;
        *record = next;
        self.0.registry.take(topic, partition);
        Ok(())
    }

    /// Starts a replica again, with other settings.
    async fn resettle(
        &self,
        record: &mut Replicas,
        topic: &TopicName,
        partition: u32,
        local: &Arc<Local>,
        settings: &TopicSettings,
    ) -> Result<(), PlantError> {
        let Some(_) = local.planted() else { return Ok(()) };
        info!(self.0.logger, "a partition starts again with other settings";
            "partition" => local.plan.name());
        self.uproot(topic, partition, local).await?;
        let plan = PartitionPlan { settings: settings.clone(), ..local.plan.clone() };
        let mut next = record.clone();
        for known in next.replicas.iter_mut().filter(|known| known.replica == plan.me) {
            known.settings.clone_from(&settings.0);
        }
        let (dir, written) = (Arc::clone(&self.0.data_dir), next.clone());
        blocking(move || Ok(dir.set_replicas(&written)?)).await?;
        *record = next;
        self.0.registry.put(topic, partition, plant(&self.0.parent, &self.0.soil, plan));
        Ok(())
    }

    /// Takes a replica out of the tree and waits until it has closed its log.
    async fn uproot(
        &self,
        topic: &TopicName,
        partition: u32,
        local: &Arc<Local>,
    ) -> Result<(), PlantError> {
        let Inner { soil, parent, .. } = &*self.0;
        let (path, plan) = match &local.growth {
            Growth::Planted(planted) => (&planted.path, Some(&planted.plan)),
            Growth::Absent(path, _) => (path, None),
        };
        soil.groups.remove(local.plan.group);
        match parent.handle().remove(path).await {
            // Of an earlier try that went no further.
            Ok(()) | Err(TreeError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let closed = async {
            while plan.is_some_and(|plan| !plan.is_closed()) {
                tokio::time::sleep(CLOSE_LOOK_INTERVAL).await;
            }
        };
        let in_time = tokio::time::timeout(CLOSE_MAX, closed).await;
        in_time.map_err(|_| PlantError::Closing { replica: format!("{topic}/{partition}") })
    }

    /// What is to be gone after the node, by name.
    pub fn traces(&self) -> Vec<super::Trace> {
        let mut traces: Vec<super::Trace> =
            vec![("the registry of partitions", Arc::downgrade(&self.0) as _)];
        for (_, _, local) in self.0.registry.all() {
            let Some(planted) = local.planted() else { continue };
            // Held by the flush threads as well.
            let plan = Arc::downgrade(&planted.plan);
            traces.push(("the log's plan, or a flush thread", plan as _));
            let published = Arc::downgrade(planted.handle.published());
            traces.push(("what the partition published, or a handle on it", published as _));
        }
        traces
    }
}

impl Registry {
    /// A partition that is here and was started.
    pub fn get(&self, topic: &str, partition: u32) -> Option<PartitionHandle> {
        let table = self.0.load();
        let local = table.get(topic)?.get(&partition)?;
        local.planted().map(|planted| planted.handle.clone())
    }

    pub(super) fn local(&self, topic: &str, partition: u32) -> Option<Arc<Local>> {
        self.0.load().get(topic)?.get(&partition).cloned()
    }

    pub(super) fn all(&self) -> Vec<(TopicName, u32, Arc<Local>)> {
        let table = self.0.load();
        let of = |(topic, partitions): (&TopicName, &BTreeMap<u32, Arc<Local>>)| {
            let topic = topic.clone();
            let each = partitions.iter();
            each.map(move |(n, local)| (topic.clone(), *n, Arc::clone(local))).collect::<Vec<_>>()
        };
        table.iter().flat_map(of).collect()
    }

    pub(super) fn of_group(&self, group: GroupId) -> Option<Arc<Local>> {
        let table = self.0.load();
        let here = table.values().flat_map(BTreeMap::values);
        here.into_iter().find(|local| local.plan.group == group).cloned()
    }

    pub(super) fn of_topic(&self, topic: &str) -> Vec<(u32, Arc<Local>)> {
        let table = self.0.load();
        let here = table.get(topic).into_iter().flatten();
        here.map(|(n, local)| (*n, Arc::clone(local))).collect()
    }

    fn put(&self, topic: &TopicName, partition: u32, local: Arc<Local>) {
        self.0.rcu(|table| {
            let mut table = Table::clone(table);
            table.entry(topic.clone()).or_default().insert(partition, Arc::clone(&local));
            table
        });
    }

    fn take(&self, topic: &TopicName, partition: u32) {
        self.0.rcu(|table| {
            let mut table = Table::clone(table);
            if let Some(partitions) = table.get_mut(topic) {
                partitions.remove(&partition);
            }
            table.retain(|_, partitions| !partitions.is_empty());
            table
        });
    }

    /// How each of them is.
    pub(super) fn states(&self) -> Vec<PartitionState> {
        self.all().iter().map(|(_, _, local)| local.state().0).collect()
    }

    /// True when no flush thread is left.
    pub(super) fn are_closed(&self) -> bool {
        let all = self.all();
        all.iter().all(|(_, _, local)| local.planted().is_none_or(|one| one.plan.is_closed()))
    }
}

/// A recorded replica as it is started again.
fn plan_of(known: &ReplicaRecord) -> PartitionPlan {
    PartitionPlan {
        group: known.group,
        place: Some((known.topic.clone(), known.partition)),
        me: known.replica,
        founders: known.founders.clone(),
        settings: TopicSettings(known.settings.clone()),
    }
}

fn record_of(plan: &PartitionPlan) -> Option<ReplicaRecord> {
    let (topic, partition) = plan.place.clone()?;
    Some(ReplicaRecord {
        group: plan.group,
        topic,
        partition,
        replica: plan.me,
        founders: plan.founders.clone(),
        settings: plan.settings.0.clone(),
    })
}

pub(super) fn plan_from(hosted: &Hosted<'_>, catalogue: &Catalogue) -> PartitionPlan {
    let id = hosted.replica.id;
    let founders = match catalogue.placement(hosted.group) {
        Some(placement) if !placement.founders.is_empty() => placement.founders.clone(),
        // One replica founds the group: the first that was given out. Others become members only by
        // it, so one that is to vote and was never here is that first one.
        Some(placement) if hosted.replica.state == ReplicaState::Member => {
            let mut others = placement.replicas.iter();
            let is_first = others.all(|other| other.id.incarnation() >= id.incarnation());
            if is_first { vec![id] } else { Vec::new() }
        }
        _ => Vec::new(),
    };
    PartitionPlan {
        group: hosted.group,
        place: Some((hosted.topic.clone(), hosted.partition)),
        me: id,
        founders,
        settings: hosted.settings.clone(),
    }
}

/// Makes the directories of new replicas, several at a time: most of it is waiting for the disk, which
/// takes many syncs at once as one. Blocks.
fn prepare_all(soil: &Soil, plans: &[PartitionPlan]) -> Result<(), PlantError> {
    let prepare = |plan: &PartitionPlan| {
        plan.prepare(soil).map_err(|source| PlantError::Directory { replica: plan.name(), source })
    };
    let share = plans.len().div_ceil(PREPARED_AT_ONCE).max(1);
    std::thread::scope(|scope| {
        let parts = plans.chunks(share);
        let threads: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().try_for_each(prepare))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// Starts a replica that was given to the node earlier, if its files are there. Blocks.
fn recover(parent: &Supervisor, soil: &Soil, plan: PartitionPlan) -> Arc<Local> {
    let directory = plan.directory(&soil.settings);
    let wanted = Mark::new(plan.group, plan.me);
    let links = files::refuse_links(&soil.settings.data_dir, &directory);
    let reason = match links.and_then(|()| Mark::read(&*soil.disk, &directory)) {
        Ok(Some(mark)) if mark == wanted => return plant(parent, soil, plan),
        Ok(Some(_)) => format!("{} holds the files of another replica", directory.display()),
        Ok(None) => format!("its files are gone ({})", directory.display()),
        Err(error) => format!("{} cannot be read: {error}", directory.display()),
    };
    let node = plan.me.node();
    let reason = format!(
        "{reason}: a replica without its vote must not vote; put the files back, or type \
         `duramen node replace {node}` at another node"
    );
    warn!(soil.logger, "a replica is not started"; "partition" => plan.name(), "reason" => &reason);
    let path = absent_below(parent, soil, &plan, reason.clone());
    Arc::new(Local { growth: Growth::Absent(path, reason), plan })
}

fn absent_below(
    parent: &Supervisor,
    soil: &Soil,
    plan: &PartitionPlan,
    reason: String,
) -> ActorPath {
    let spec = supervisor("", Strategy::OneForAll, Exhausted::Quarantine, &soil.settings);
    let path = parent.path().child(&plan.name());
    if let Ok(supervisor) = parent.try_supervisor(spec.named(plan.name())) {
        let _ = supervisor.child(absent::spec(), Place::Control, move |_, seat| {
            AbsentActor::new(seat, reason.clone())
        });
    }
    path
}

fn plant(parent: &Supervisor, soil: &Soil, plan: PartitionPlan) -> Arc<Local> {
    let growth = match Partition::plant(parent, soil, &plan) {
        Ok(partition) => Growth::Planted(partition),
        Err(error) => {
            let path = parent.path().child(&plan.name());
            warn!(soil.logger, "a replica is not started"; "partition" => plan.name(),
                "error" => %error);
            Growth::Absent(path, format!("it has no place in the tree: {error}"))
        }
    };
    Arc::new(Local { plan, growth })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PlantError> + Send + 'static,
) -> Result<T, PlantError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The tree that a planter acts on, and where partitions lie on the disk: for its tests.
impl Partitions {
    /// The tree.
    pub fn tree(&self) -> TreeHandle {
        self.0.parent.handle()
    }

    /// Whether a partition's log is open and no thread has it in hand.
    pub fn is_at_rest(&self, topic: &str, partition: u32) -> bool {
        let local = self.0.registry.local(topic, partition);
        local.is_some_and(|local| local.planted().is_some_and(|one| one.plan.is_at_rest()))
    }

    /// Where the files of a partition are.
    pub fn directory(&self, topic: &str, partition: u32) -> Option<PathBuf> {
        let local = self.0.registry.local(topic, partition)?;
        Some(local.plan.directory(&self.0.soil.settings))
    }
}
