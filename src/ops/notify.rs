//! Notices to systemd (`Type=notify-reload`): ready, reloading, stopping, status, watchdog.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. A notice that cannot be sent is
//! logged and otherwise ignored: a node serves with or without a service manager.

use sd_notify::NotifyState;
use slog::{Logger, debug, warn};
use std::time::Duration;

/// Sends notices to the service manager, where there is one.
#[derive(Debug, Clone)]
pub struct Notifier {
    logger: Logger,
}

impl Notifier {
    /// A notifier that logs what it could not send.
    pub fn new(logger: Logger) -> Self {
        Self { logger }
    }

    /// Serving: recovery is over and the ports are open. Also ends a reload.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload has begun; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        // The manager takes a reload without the time of its start for a failure.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => warn!(self.logger, "no time for a reload notice"; "error" => %error),
        }
    }

    /// On the way out.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status`, such as how far recovery has come.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(status)]);
    }

    /// Asks for more time to start, as a long recovery needs: without it the manager kills the
    /// node and starts it over, for ever.
    pub fn extend_start(&self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// How often the service manager wants to hear from the node; `None`: not at all.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        let mut micros = 0;
        sd_notify::watchdog_enabled(false, &mut micros).then(|| Duration::from_micros(micros))
    }

    /// Feeds the watchdog for as long as the future is polled: each time only after `round_trip`
    /// (through the root supervisor, so that a hung node is not reported well) came back true.
    /// Returns at once where no watchdog is asked for.
    pub async fn feed_watchdog(&self, mut round_trip: impl AsyncFnMut() -> bool) {
        let Some(interval) = self.watchdog_interval() else { return };
        // A third: two may be late before the manager acts.
        let mut ticks = tokio::time::interval(interval / 3);
        loop {
            ticks.tick().await;
            if round_trip().await {
                self.send(&[NotifyState::Watchdog]);
            } else {
                warn!(self.logger, "the watchdog is not fed: the node did not answer itself");
            }
        }
    }

    fn send(&self, notices: &[NotifyState<'_>]) {
        // False: the variable stays, for the next notice needs it too.
        if let Err(error) = sd_notify::notify(false, notices) {
            debug!(self.logger, "the service manager was not told"; "error" => %error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_service_manager_notices_go_nowhere_and_the_watchdog_asks_for_nothing() {
        let notifier = Notifier::new(Logger::root(slog::Discard, slog::o!()));
        notifier.ready("serving");
        notifier.reloading();
        notifier.stopping();
        assert_eq!(notifier.watchdog_interval(), None);
    }
}
