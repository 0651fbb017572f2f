//! The controller's place in the tree: group 0 itself, whoever follows it into the catalogue, and
//! whoever brings the node into its cluster.
//!
//! ```text
//! node/controller              one-for-one: the catalogue outlives a restart of its group
//! ├─ (group 0)                 planted by `Home::plant`, as a partition is
//! ├─ catalogue                                                            (control thread)
//! └─ formation                                                            (control thread)
//! ```

use crate::actors::controller::{
    Control, ControllerActor, DutyOptions, FormationActor, FormationOptions, Home, formation_spec,
    spec,
};
use crate::supervision::{Place, Supervisor};
use std::sync::Arc;

/// Puts the controller's actors below their supervisor. They begin to work as the tree starts:
/// formation plants group 0 through `home`.
pub fn controller_below(
    supervisor: &Supervisor,
    control: &Control,
    home: Arc<dyn Home>,
    formation: FormationOptions,
    duties: DutyOptions,
) {
    let own = control.clone();
    let _ = supervisor.child(spec(), Place::Control, move |_, seat| {
        ControllerActor::new(seat, own.clone(), duties.clone())
    });
    let own = control.clone();
    let _ = supervisor.child(formation_spec(), Place::Control, move |_, seat| {
        FormationActor::new(seat, own.clone(), Arc::clone(&home), formation.clone())
    });
}
