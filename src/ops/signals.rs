//! Signals, as words: what the person at the other end of `kill` asks for.
//!
//! TERM and INT ask to drain, a second one to leave at once. HUP reloads, QUIT dumps the tree. USR1
//! asks elsewhere to reopen log files; there are none here (diagnostics go to standard error), and
//! it is caught so that a log rotator's habit does not kill the node.

use std::fmt;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that ends the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT, as sent by Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl StopSignal {
    /// The exit code that shells expect of a process that a signal ended.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Finish what is under way, flush, and end.
    Drain(StopSignal),
    /// End at once: draining was asked for before.
    LeaveNow(StopSignal),
    /// Read the configuration again.
    Reload,
    /// Write the tree of actors to the logger and go on.
    DumpTree,
    /// Nothing to do: there are no files of diagnostics to reopen.
    ReopenFiles,
}

/// Listens for signals from its creation on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    user_one: Signal,
    draining: bool,
}

impl Signals {
    /// Takes the signals over from their defaults. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The system refuses the registration.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user_one: signal(SignalKind::user_defined1())?,
            draining: false,
        })
    }

    /// Waits for the next signal and says what it asks for. Dropping the future loses none.
    pub async fn next(&mut self) -> Request {
        // The registrations never end, so that every `recv` is a signal.
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => self.stop(StopSignal::Interrupt),
            _ = self.terminate.recv() => self.stop(StopSignal::Terminate),
            _ = self.quit.recv() => Request::DumpTree,
            _ = self.hangup.recv() => Request::Reload,
            _ = self.user_one.recv() => Request::ReopenFiles,
        }
    }

    fn stop(&mut self, signal: StopSignal) -> Request {
        if std::mem::replace(&mut self.draining, true) {
            Request::LeaveNow(signal)
        } else {
            Request::Drain(signal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Number, getpid, kill_process};

    #[test]
    fn the_first_stop_drains_the_second_leaves_and_the_others_do_what_they_say() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut signals = Signals::listen().unwrap();
            for (number, asked) in [
                (Number::HUP, Request::Reload),
                (Number::QUIT, Request::DumpTree),
                (Number::USR1, Request::ReopenFiles),
                (Number::TERM, Request::Drain(StopSignal::Terminate)),
                (Number::INT, Request::LeaveNow(StopSignal::Interrupt)),
            ] {
                kill_process(getpid(), number).unwrap();
                assert_eq!(signals.next().await, asked);
            }
        });
    }
}
