//! What of a stream was refused for now: what the client sent before it could know that must not
//! overtake it, and is refused for the same reason.

use super::refusal::Refusal;
use std::collections::HashMap;
use tokio::time::Instant;

/// Lanes of one stream that may be paused at a time; names that a client invents count too.
const PAUSES_MAX: usize = 1024;

/// See the module. By lane: which requests must not overtake one another.
#[derive(Debug, Default)]
pub struct Pauses(HashMap<u64, Pause>);

#[derive(Debug)]
struct Pause {
    refusal: Refusal,
    /// When the client was told to come back; `None` until it was told.
    until: Option<Instant>,
}

impl Pause {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

/// There is no room for another one: without it later requests would overtake the refused one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl From<TooMany> for Refusal {
    fn from(_: TooMany) -> Self {
        Self::too_many_paused(PAUSES_MAX)
    }
}

impl Pauses {
    /// Whether nothing is held up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why a request in this lane is refused, if it is.
    pub fn refusal(&mut self, lane: u64, now: Instant) -> Option<Refusal> {
        let pause = self.0.get(&lane)?;
        if !pause.is_over(now) {
            return Some(pause.refusal.clone());
        }
        self.0.remove(&lane);
        None
    }

    /// A request was refused, and the client does not know it yet.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn begin(&mut self, lane: u64, refusal: &Refusal, now: Instant) -> Result<(), TooMany> {
        if refusal.retry_after().is_none() || self.0.contains_key(&lane) {
            return Ok(());
        }
        self.insert(lane, Pause { refusal: refusal.clone(), until: None }, now)
    }

    /// The client is told of a refusal: the first of a row says when to come back.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn told(&mut self, lane: u64, refusal: &Refusal, now: Instant) -> Result<(), TooMany> {
        let Some(after) = refusal.retry_after() else { return Ok(()) };
        let until = Some(now + after);
        match self.0.get_mut(&lane) {
            Some(pause) => pause.until = pause.until.or(until),
            None => self.insert(lane, Pause { refusal: refusal.clone(), until }, now)?,
        }
        Ok(())
    }

    fn insert(&mut self, lane: u64, pause: Pause, now: Instant) -> Result<(), TooMany> {
        if self.0.len() >= PAUSES_MAX {
            self.0.retain(|_, pause| !pause.is_over(now));
        }
        if self.0.len() >= PAUSES_MAX {
            return Err(TooMany);
        }
        self.0.insert(lane, pause);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::partition::ProduceError;
    use std::time::Duration;

    fn for_now() -> Refusal {
        let refusal = Refusal::from(ProduceError::Overloaded {
            message: "full".into(),
            retry_after: Duration::from_millis(100),
        });
        assert_eq!(refusal.retry_after(), Some(Duration::from_millis(100)));
        refusal
    }

    #[test]
    fn nothing_overtakes_what_was_refused_before_the_client_could_know() {
        let (mut pauses, no) = (Pauses::default(), for_now());
        let start = Instant::now();
        let at = |milliseconds: u64| start + Duration::from_millis(milliseconds);
        pauses.begin(7, &no, start).unwrap();
        assert_eq!(pauses.refusal(7, at(60_000)), Some(no.clone()), "it was not told yet");
        assert_eq!(pauses.refusal(8, at(60_000)), None, "another lane goes on");
        pauses.told(7, &no, at(60_000)).unwrap();
        pauses.told(7, &no, at(60_050)).unwrap();
        assert_eq!(pauses.refusal(7, at(60_099)), Some(no.clone()));
        assert_eq!(pauses.refusal(7, at(60_100)), None, "it may come back");
        // What is refused for good holds nothing up.
        pauses.told(7, &Refusal::invalid("never"), at(60_100)).unwrap();
        assert_eq!(pauses.refusal(7, at(60_100)), None);
        assert!(pauses.is_empty());
    }

    #[test]
    fn lanes_that_a_client_invents_find_an_end_and_old_ones_make_room() {
        let (mut pauses, no) = (Pauses::default(), for_now());
        let (now, max) = (Instant::now(), PAUSES_MAX as u64);
        assert!((0..max).all(|lane| pauses.told(lane, &no, now).is_ok()));
        assert_eq!(pauses.told(max, &no, now), Err(TooMany));
        assert_eq!(pauses.begin(max, &no, now), Err(TooMany));
        assert_eq!(pauses.begin(0, &no, now), Ok(()), "one that is known takes no room");
        pauses.begin(max, &no, now + Duration::from_millis(100)).unwrap();
        assert_eq!(pauses.0.len(), 1);
    }
}
