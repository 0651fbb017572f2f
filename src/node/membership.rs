//! Gossip below the root: a supervisor of its own, so that no number of its crashes ends the node.

use crate::actors::membership::{self, Me, MembershipActor, MembershipOptions, Pace};
use crate::actors::presence::PresenceBoard;
use crate::cluster::{Catalogue, PROTOCOL};
use crate::observe::metrics::Metrics;
use crate::ops::data_dir::DataDir;
use crate::ops::settings::{HostPort, Settings};
use crate::supervision::{
    ActorRef, Exhausted, Intensity, Place, Strategy, Supervisor, SupervisorSpec,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Plants the membership actor: gossip begins shortly after the tree has started.
pub(super) fn membership_below(
    root: &Supervisor,
    settings: &Settings,
    metrics: Arc<Metrics>,
    board: PresenceBoard,
    me: Me,
    catalogue: watch::Receiver<Arc<Catalogue>>,
) -> ActorRef<MembershipActor> {
    let gossip = &settings.gossip;
    let options = Arc::new(MembershipOptions {
        addr: gossip.addr,
        advertise: gossip.advertise,
        join: gossip.join.iter().map(HostPort::to_string).collect(),
        key: gossip.key.as_ref().map(|key| key.bytes()),
        multicast: gossip.multicast,
        pace: Pace::of(gossip.addr),
        connections_max: gossip.connections_max as usize,
        message_bytes_max: usize::try_from(gossip.message_bytes_max.bytes()).unwrap_or(usize::MAX),
        message_timeout: gossip.message_timeout,
        metrics,
        panics: membership::panics_counted,
    });
    // Its restarts are rare enough by their backoff, and a node serves without it.
    let intensity = Intensity { restarts_max: 1000, window: Duration::from_secs(60) };
    let own = root.supervisor(SupervisorSpec {
        intensity,
        ..SupervisorSpec::new("membership", Strategy::OneForOne, Exhausted::Quarantine)
    });
    own.child(membership::spec(), Place::Control, move |_, seat| {
        let (options, me) = (Arc::clone(&options), me.clone());
        MembershipActor::new(seat, options, me, board.clone(), catalogue.clone())
    })
}

/// What this node says of itself.
pub(super) fn me(settings: &Settings, data_dir: &DataDir, rpc_addr: SocketAddr) -> Me {
    let advertised = settings.cluster.advertise_rpc.as_ref();
    Me {
        uuid: data_dir.node_id().to_owned(),
        name: settings.node.shown_name(),
        rpc_addr: advertised.map_or_else(|| rpc_addr.to_string(), HostPort::to_string),
        protocol_max: PROTOCOL,
        labels: settings.node.labels.0.clone(),
        known: data_dir.cluster().map(|known| (known.cluster_id.clone(), known.node)),
    }
}
