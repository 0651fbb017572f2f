//! Promises of the whole room; each part tests its own beside it.
