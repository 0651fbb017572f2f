//! The front ends: what they are built from, and how each is joined with its actor.

use super::FAREWELL;
use super::partitions::Registry;
use super::readings::Readings;
use super::topics::NodeTopics;
use crate::actors::frontend::{self, FrontendActor, Serve};
use crate::actors::observer::ObserveApi;
use crate::actors::partition::PartitionState;
use crate::actors::readiness::{Condition, NodeInfo, Readiness, SubsystemStatus};
use crate::frontends::access::Door;
use crate::frontends::drain::Drain;
use crate::frontends::grpc::{
    AdminService, GrpcFrontend, HealthSwitch, PeerService, Places, RpcLimits,
};
use crate::frontends::http::{HttpFrontend, HttpLimits};
use crate::frontends::intake::Intake;
use crate::guards::tls::Tls;
use crate::model::Clock;
use crate::observe::metrics::Measure;
use crate::observe::{Complaints, Instruments};
use crate::ops::settings::Settings;
use crate::supervision::{Place, Supervisor};
use slog::Logger;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What front ends are built from.
pub(super) struct Seams<'a> {
    pub topics: NodeTopics,
    pub peer: PeerService,
    pub admin: AdminService,
    pub info: Arc<NodeInfo>,
    pub clock: Arc<dyn Clock>,
    pub complaints: Arc<Complaints>,
    pub observer: Arc<dyn ObserveApi>,
    pub settings: &'a Settings,
    pub door: Arc<Door>,
    pub instruments: Instruments,
    pub readings: Arc<Readings>,
    pub tls: Option<Arc<Tls>>,
}

impl Seams<'_> {
    /// What may be half-way in at both ports together.
    fn intake(&self) -> Intake {
        let bytes_max = self.settings.admission.incoming_bytes_max.len();
        self.readings.intake.get_or_init(|| Intake::new(bytes_max)).clone()
    }

    /// Calls that may be open at once.
    fn calls(&self) -> Places {
        let calls_max = self.settings.rpc.calls_max as usize;
        self.readings.calls.get_or_init(|| Places::new(calls_max)).clone()
    }

    pub fn grpc_below(
        &self,
        front: &Supervisor,
        place: Place,
        socket: TcpListener,
        logger: Logger,
    ) {
        let rpc = &self.settings.rpc;
        let limits = RpcLimits {
            connections_max: rpc.connections_max as usize,
            streams_max: rpc.streams_max,
            calls: self.calls(),
            intake: self.intake(),
            message_bytes_max: rpc.message_bytes_max.len(),
            outstanding_batches_max: rpc.outstanding_batches_max as usize,
            request_deadline: rpc.request_deadline,
            idle_max: rpc.idle_timeout,
            forward: rpc.forward,
            rotation_grace: self.settings.tls.rotation_grace,
            grace: self.settings.shutdown.grace,
            ..RpcLimits::default()
        };
        let (topics, node) = (self.topics.clone(), Arc::clone(&self.info));
        let (peer, admin) = (self.peer.clone(), self.admin.clone());
        let (clock, observer) = (Arc::clone(&self.clock), Arc::clone(&self.observer));
        let (complaints, tls) = (Arc::clone(&self.complaints), self.tls.clone());
        let door = Arc::clone(&self.door);
        self.readings.guarded(&self.door);
        let (counters, instruments) = (Arc::clone(&self.readings.rpc), self.instruments.clone());
        let readiness = self.readiness();
        let serve = Serve::new(move |draining| {
            let frontend = GrpcFrontend {
                topics: topics.clone(),
                node: Arc::clone(&node),
                clock: Arc::clone(&clock),
                limits: limits.clone(),
                readiness: Arc::clone(&readiness),
                health: HealthSwitch::default(),
                counters: Arc::clone(&counters),
                complaints: Arc::clone(&complaints),
                observer: Some(Arc::clone(&observer)),
                peer: Some(peer.clone()),
                admin: Some(admin.clone()),
                door: Arc::clone(&door),
                instruments: instruments.clone(),
                tls: tls.clone(),
                logger: logger.clone(),
            };
            serve_until(draining, socket.try_clone(), |socket, drain| frontend.serve(socket, drain))
        });
        let spec = frontend::spec("grpc", self.settings.shutdown.grace + FAREWELL);
        let _ = front.child(spec, place, move |_, seat| FrontendActor::new(seat, serve.clone()));
    }

    fn readiness(&self) -> Arc<dyn Readiness> {
        let partitions = self.topics.partitions.clone();
        Arc::new(NodeReadiness { partitions, was_whole: AtomicBool::new(false) })
    }

    pub fn http_below(&self, front: &Supervisor, socket: TcpListener, logger: Logger) {
        let http = &self.settings.http;
        let limits = HttpLimits {
            connections_max: http.connections_max as usize,
            intake: self.intake(),
            body_bytes_max: http.body_bytes_max.len(),
            request_deadline: self.settings.rpc.request_deadline,
            forward: self.settings.rpc.forward,
            rotation_grace: self.settings.tls.rotation_grace,
            grace: self.settings.shutdown.grace,
            ..HttpLimits::default()
        };
        let (topics, node) = (self.topics.clone(), Arc::clone(&self.info));
        let (clock, observer) = (Arc::clone(&self.clock), Arc::clone(&self.observer));
        let readiness = self.readiness();
        let (complaints, tls) = (Arc::clone(&self.complaints), self.tls.clone());
        let (counters, instruments) = (Arc::clone(&self.readings.http), self.instruments.clone());
        let (readings, door) = (Arc::clone(&self.readings), Arc::clone(&self.door));
        let serve = Serve::new(move |draining| {
            let frontend = HttpFrontend {
                topics: topics.clone(),
                node: Arc::clone(&node),
                readiness: Arc::clone(&readiness),
                clock: Arc::clone(&clock),
                limits: limits.clone(),
                counters: Arc::clone(&counters),
                complaints: Arc::clone(&complaints),
                observer: Some(Arc::clone(&observer)),
                door: Arc::clone(&door),
                instruments: instruments.clone(),
                measure: Arc::clone(&readings) as Arc<dyn Measure>,
                tls: tls.clone(),
                logger: logger.clone(),
            };
            serve_until(draining, socket.try_clone(), |socket, drain| frontend.serve(socket, drain))
        });
        let spec = frontend::spec("http", self.settings.shutdown.grace + FAREWELL);
        let place = Place::Control;
        let _ = front.child(spec, place, move |_, seat| FrontendActor::new(seat, serve.clone()));
    }
}

/// Joins a front end with its actor: the actor's wish to stop becomes the front end's drain.
fn serve_until<F>(
    mut draining: frontend::Draining,
    socket: std::io::Result<TcpListener>,
    serve: impl FnOnce(TcpListener, Drain) -> F + 'static,
) -> frontend::Serving
where
    F: Future<Output = std::io::Result<()>> + 'static,
{
    Box::pin(async move {
        let socket =
            socket.map_err(|error| format!("cannot reuse the listening socket: {error}"))?;
        let (switch, drain) = Drain::channel();
        let forward = async move {
            // An error says that the actor is gone, and with it this future.
            let _ = draining.wait_for(|wanted| *wanted).await;
            switch.begin();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = serve(socket, drain) => served.map_err(|error| error.to_string()),
            () = forward => Ok(()),
        }
    })
}

/// Tells how the node is without asking an actor, so that it answers while a shard hangs.
struct NodeReadiness {
    partitions: Registry,
    /// Every partition was recovered once since the node started.
    was_whole: AtomicBool,
}

impl NodeReadiness {
    /// A part that does not work makes a node that has begun to serve no less ready for the others:
    /// it is not ready while it starts, and when nothing of it works.
    fn worst_allowed(&self, conditions: impl Iterator<Item = Condition>) -> Condition {
        let (mut any, mut any_works, mut all_work) = (false, false, true);
        for condition in conditions {
            let works = condition != Condition::NotReady;
            (any, any_works, all_work) = (true, any_works || works, all_work && works);
        }
        if all_work {
            self.was_whole.store(true, Ordering::Relaxed);
        }
        let serves = any_works && self.was_whole.load(Ordering::Relaxed);
        if serves || !any { Condition::Degraded } else { Condition::NotReady }
    }
}

impl Readiness for NodeReadiness {
    fn readiness(&self) -> Vec<SubsystemStatus> {
        let all = self.partitions.all();
        let mut parts: Vec<SubsystemStatus> = all
            .into_iter()
            .map(|(topic, partition, local)| {
                let (state, reason) = local.state();
                let condition = condition_of(state, &reason);
                let reason = match reason {
                    reason if reason.is_empty() => reason,
                    reason => format!("{}: {reason}", state.name()),
                };
                let subsystem = format!("partitions/{topic}/{partition}");
                SubsystemStatus { subsystem, condition, reason }
            })
            .collect();
        let worst = self.worst_allowed(parts.iter().map(|part| part.condition));
        for part in &mut parts {
            part.condition = part.condition.min(worst);
        }
        parts
    }

    fn is_ready(&self) -> bool {
        let all = self.partitions.all();
        let conditions = all.iter().map(|(_, _, local)| {
            let (state, reason) = local.state();
            condition_of(state, &reason)
        });
        // Also when all are well: that is remembered.
        self.worst_allowed(conditions) != Condition::NotReady
    }
}

fn condition_of(state: PartitionState, reason: &str) -> Condition {
    match state {
        PartitionState::Serving if reason.is_empty() => Condition::Ready,
        PartitionState::Serving | PartitionState::Quarantined => Condition::Degraded,
        PartitionState::Recovering | PartitionState::Restarting | PartitionState::Stopped => {
            Condition::NotReady
        }
    }
}
