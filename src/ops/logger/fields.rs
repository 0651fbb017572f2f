//! What a line says of itself, and what it gets by itself: who wrote it, while handling which
//! message, for which request.

use crate::observe::{PathId, Scope};
use slog::{KV, Key, OwnedKVList, Record, Serializer};
use std::cell::Cell;
use std::fmt::{self, Write};

/// The key whose value is the path of the actor that wrote a line; patterns of a
/// [`super::LevelSpec`] are held against it.
pub const ACTOR_KEY: &str = "actor";
/// The message that was handled, by name; a pattern's last step.
pub const MESSAGE_KEY: &str = "message";
/// Its number.
pub const ID_KEY: &str = "id";
/// The client's request that it was handled for.
pub const REQUEST_KEY: &str = "request";

/// Text up to this length is kept room for.
const KEPT_BYTES: usize = 1024;

thread_local! {
    /// Room for a line's path and message, so that a line that nobody wants allocates nothing.
    static ROOM: Cell<(String, String)> = const { Cell::new((String::new(), String::new())) };
}

/// What a line says of itself.
#[derive(Debug, Default)]
pub struct Told {
    /// Its actor; empty where it names none.
    pub actor: String,
    /// Its message; empty where it names none.
    pub message: String,
    has_id: bool,
    has_request: bool,
}

impl Told {
    /// Reads a line's values and those of its logger.
    pub fn by(record: &Record<'_>, values: &OwnedKVList) -> Self {
        // A thread that ends has no room any more.
        let (actor, message) = ROOM.try_with(Cell::take).unwrap_or_default();
        let mut told = Self { actor, message, has_id: false, has_request: false };
        // The line's own word goes before what its logger carries; neither search can fail.
        let _ = record.kv().serialize(record, &mut told);
        let _ = values.serialize(record, &mut told);
        told
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let (mut actor, mut message) =
            (std::mem::take(&mut self.actor), std::mem::take(&mut self.message));
        if actor.capacity() <= KEPT_BYTES && message.capacity() <= KEPT_BYTES {
            actor.clear();
            message.clear();
            // See above.
            let _ = ROOM.try_with(|room| room.set((actor, message)));
        }
    }
}

impl Serializer for Told {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        // The innermost logger's value comes first and is the one that counts.
        let place = match key {
            ACTOR_KEY => &mut self.actor,
            MESSAGE_KEY => &mut self.message,
            ID_KEY => {
                self.has_id = true;
                return Ok(());
            }
            REQUEST_KEY => {
                self.has_request = true;
                return Ok(());
            }
            _ => return Ok(()),
        };
        if place.is_empty() {
            place.write_fmt(*value)?;
        }
        Ok(())
    }

    fn emit_str(&mut self, key: Key, value: &str) -> slog::Result {
        match key {
            ACTOR_KEY if self.actor.is_empty() => self.actor.push_str(value),
            MESSAGE_KEY if self.message.is_empty() => self.message.push_str(value),
            ID_KEY => self.has_id = true,
            REQUEST_KEY => self.has_request = true,
            _ => {}
        }
        Ok(())
    }
}

/// What a line gets by itself: of what its thread was doing, whatever it does not say itself. A
/// line that tells of a message gets nothing: it may be about another one.
pub struct Added<'a> {
    /// What its thread was doing.
    pub scope: &'a Scope,
    /// What it says of itself.
    pub told: &'a Told,
}

impl KV for Added<'_> {
    /// Last first, as slog's own lists.
    fn serialize(&self, _: &Record<'_>, serializer: &mut dyn Serializer) -> slog::Result {
        let Self { scope, told } = self;
        if !told.message.is_empty() {
            return Ok(());
        }
        if scope.call.request != 0 && !told.has_request {
            serializer.emit_u64(REQUEST_KEY, scope.call.request)?;
        }
        if !scope.name.is_empty() {
            if !told.has_id {
                serializer.emit_u64(ID_KEY, scope.message.0)?;
            }
            serializer.emit_str(MESSAGE_KEY, scope.name)?;
        }
        if scope.actor != PathId::NOBODY && told.actor.is_empty() {
            serializer.emit_str(ACTOR_KEY, &scope.actor.path())?;
        }
        Ok(())
    }
}
