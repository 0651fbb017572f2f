//! What the calling thread is doing at the moment, and for whom: the source of every stamp's
//! sender, cause and call, and of the fields that a line of diagnostics gets by itself.

use super::{Call, MessageId, PathId};
use std::cell::Cell;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope {
    /// Who works.
    pub actor: PathId,
    /// The message in hand.
    pub message: MessageId,
    /// Its name; empty where there is none.
    pub name: &'static str,
    /// Where the recorder of `actor` keeps it.
    pub(super) slot: u32,
    /// The client's request that this is done for.
    pub call: Call,
}

impl Scope {
    /// Work of an actor outside of any message: its start, its timers, its futures.
    pub fn of_actor(actor: PathId) -> Self {
        Self { actor, ..Self::default() }
    }

    /// Work for a client's request, outside of any message.
    pub fn of_call(actor: PathId, call: Call) -> Self {
        Self { actor, call, ..Self::default() }
    }
}

thread_local! {
    static CURRENT: Cell<Scope> = const {
        Cell::new(Scope {
            actor: PathId::NOBODY,
            message: MessageId(0),
            name: "",
            slot: 0,
            call: Call { request: 0, trace: None },
        })
    };
}

/// What the calling thread is doing.
pub fn current() -> Scope {
    CURRENT.get()
}

/// Does something else until the guard is dropped. Not to be held over an `await`: the thread
/// would do other work in its name.
#[must_use = "the scope ends when the guard is dropped"]
pub fn enter(scope: Scope) -> ScopeGuard {
    ScopeGuard { before: CURRENT.replace(scope), _here: std::marker::PhantomData }
}

/// See [`enter`].
#[derive(Debug)]
pub struct ScopeGuard {
    before: Scope,
    /// A scope belongs to its thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_nest_and_end_with_their_guard() {
        assert_eq!(current(), Scope::default());
        let call = Call { request: 7, trace: None };
        let outer = enter(Scope::of_call(PathId::of("node/frontends/grpc"), call));
        {
            let _inner = enter(Scope { name: "Append", ..current() });
            assert_eq!((current().name, current().call.request), ("Append", 7));
        }
        assert_eq!(current().name, "");
        drop(outer);
        assert_eq!(current(), Scope::default());
    }
}
