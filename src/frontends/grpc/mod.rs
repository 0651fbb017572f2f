//! gRPC: the book's `log.v1` and duramen's own `duramen.v1`, with health and reflection.

mod acks;
mod admin;
mod ahead;
mod deadline;
mod dispatch;
mod fetch;
mod frames;
mod idle;
mod log;
mod log_v1;
mod methods;
mod observe;
mod paced;
mod pauses;
mod peer;
mod places;
mod refusal;
mod reply;
mod serve;
mod stalled;
mod whole;

pub use admin::AdminService;
pub use peer::{PeerParts, PeerService};
pub use places::Places;
pub use serve::{GrpcFrontend, HealthSwitch, RpcLimits};
