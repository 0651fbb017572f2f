//! `duramen.v1.Observe`: the inside of a node for operators.
//!
//! A tap is a bounded queue that drops: while its client does not read, its stream is not polled,
//! and nothing waits for it.

use super::deadline;
use super::dispatch::Client;
use super::refusal::Refusal;
use crate::access::{ANYONE, Action as Deed};
use crate::actors::observer::{Action, ObserveApi};
use crate::actors::readiness::NodeInfo;
use crate::frontends::access::{Asker, StreamPass};
use crate::frontends::drain::Drain;
use crate::frontends::observe as words;
use crate::model::{Clock, Proof};
use crate::observe::{Pattern, Tap, TapFilter};
use crate::wire::pb::duramen::v1 as pb;
use futures_util::FutureExt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::Stream;
use tonic::{Extensions, Request, Response, Status};

/// Messages that may wait for a tap's client where it does not say.
const TAP_QUEUE_DEFAULT: u32 = 4096;
/// Messages that may wait for a tap's client whatever it says.
const TAP_QUEUE_MAX: u32 = 65_536;
/// Messages in one response.
const TAP_RESPONSE_MAX: usize = 256;
/// Types of messages that one tap may name.
const TAP_MESSAGES_MAX: usize = 64;
/// How often a tap without messages tells how many were dropped.
const TAP_NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// The longest text taken from a client: a path, a pattern, a specification of levels.
const TEXT_BYTES_MAX: usize = 4096;

/// Serves `duramen.v1.Observe`.
pub struct ObserveService {
    pub observer: Arc<dyn ObserveApi>,
    pub node: Arc<NodeInfo>,
    pub clock: Arc<dyn Clock>,
    /// The longest that an action may take to be under way.
    pub wait_max: Duration,
    pub drain: Drain,
}

fn checked(text: String, what: &str) -> Result<String, Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        let bytes = text.len();
        let message = format!("the {what} has {bytes} bytes; at most {TEXT_BYTES_MAX} are taken");
        return Err(Refusal::invalid(message));
    }
    Ok(text)
}

/// Where nothing is judged, whoever has not proved who they are and acts on the node must be on its
/// machine; else the policy has said already that they may. A call that came by no connection is of the
/// process itself.
pub(super) fn from_this_machine(extensions: &Extensions) -> Result<(), Refusal> {
    match extensions.get::<Client>() {
        _ if Asker::of(extensions).is_judged() => Ok(()),
        Some(Client { peer, caller, .. })
            if caller.proof == Proof::None && !peer.ip().to_canonical().is_loopback() =>
        {
            Err(Refusal::stranger(peer.ip()))
        }
        _ => Ok(()),
    }
}

fn pattern(text: String) -> Result<Pattern, Refusal> {
    Pattern::new(&checked(text, "pattern")?)
        .ok_or_else(|| Refusal::invalid("the pattern is empty: give a path, or ** for all"))
}

fn filter(request: pb::TapRequest) -> Result<TapFilter, Refusal> {
    if request.messages.len() > TAP_MESSAGES_MAX {
        let message = format!("a tap names at most {TAP_MESSAGES_MAX} types of messages");
        return Err(Refusal::invalid(message));
    }
    let names = request.messages.into_iter();
    let queue_len = match request.queue_len {
        0 => TAP_QUEUE_DEFAULT,
        asked => asked.min(TAP_QUEUE_MAX),
    };
    Ok(TapFilter {
        pattern: pattern(request.pattern)?,
        messages: names.map(|name| checked(name, "type")).collect::<Result<_, _>>()?,
        slower_than: Duration::from_micros(request.slower_than_us),
        sample: request.sample,
        queue_len: queue_len as usize,
    })
}

#[tonic::async_trait]
impl pb::observe_server::Observe for ObserveService {
    async fn tree(
        &self,
        request: Request<pb::TreeRequest>,
    ) -> Result<Response<pb::TreeResponse>, Status> {
        let wanted = request.into_inner().pattern;
        let pattern = if wanted.is_empty() { None } else { Some(pattern(wanted)?) };
        let report = self.observer.tree(pattern.as_ref()).map_err(Refusal::from)?;
        Ok(Response::new(words::tree(report, &self.node)))
    }

    type TapStream = TapStream;

    async fn tap(
        &self,
        request: Request<pb::TapRequest>,
    ) -> Result<Response<Self::TapStream>, Status> {
        let mut pass = Asker::of(request.extensions()).pass(false);
        // Behind the subscription to changes: none goes unseen.
        pass.check(Deed::Observe, ANYONE).map_err(Refusal::from)?;
        let opened = self.observer.tap(filter(request.into_inner())?).map_err(Refusal::from)?;
        let clock = Arc::clone(&self.clock);
        let tapping = Tapping {
            tap: opened.tap,
            clock,
            drain: self.drain.clone(),
            first: Some(opened.warnings),
            pass,
            told: 0,
        };
        Ok(Response::new(tapping.into_stream()))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::Explanation>, Status> {
        let subject = words::subject(request.into_inner().subject);
        let told = self.observer.explain(subject).map_err(Refusal::from)?;
        Ok(Response::new(words::explanation(told)))
    }

    async fn command(
        &self,
        request: Request<pb::CommandRequest>,
    ) -> Result<Response<pb::CommandResponse>, Status> {
        from_this_machine(request.extensions())?;
        let time = deadline::at_most(self.wait_max, request.metadata());
        let asker = Asker::of(request.extensions());
        let pb::CommandRequest { action, path, reason } = request.into_inner();
        let action = match pb::Action::try_from(action) {
            Ok(pb::Action::Restart) => Action::Restart,
            Ok(pb::Action::Quarantine) => Action::Quarantine,
            Ok(pb::Action::Release) => Action::Release,
            Ok(pb::Action::Unspecified) | Err(_) => {
                return Err(Refusal::invalid(format!("action {action} is unknown")).into());
            }
        };
        let (path, reason) = (checked(path, "path")?, checked(reason, "reason")?);
        let what = format!("{action:?} {path}");
        let acting =
            self.observer.act(action, path, reason).map(|acted| acted.map_err(Refusal::from));
        let acted = deadline::within(time, acting, Refusal::action_deadline).await;
        asker.acted(what, acted.as_ref().map_or_else(|no| no.message().into(), |_| "done".into()));
        Ok(Response::new(words::acted(acted?)))
    }

    async fn get_log_levels(
        &self,
        _: Request<pb::GetLogLevelsRequest>,
    ) -> Result<Response<pb::LogLevels>, Status> {
        let levels = self.observer.log_levels().map_err(Refusal::from)?;
        Ok(Response::new(words::log_levels(levels)))
    }

    async fn set_log_levels(
        &self,
        request: Request<pb::SetLogLevelsRequest>,
    ) -> Result<Response<pb::LogLevels>, Status> {
        from_this_machine(request.extensions())?;
        let asker = Asker::of(request.extensions());
        let spec = checked(request.into_inner().spec, "specification")?;
        asker.acted(format!("log levels {spec}"), "asked for".into());
        let levels = self.observer.set_log_levels(&spec).map_err(Refusal::from)?;
        Ok(Response::new(words::log_levels(levels)))
    }
}

/// The responses of a tap.
pub type TapStream = Pin<Box<dyn Stream<Item = Result<pb::TapResponse, Status>> + Send>>;

struct Tapping {
    tap: Tap,
    clock: Arc<dyn Clock>,
    drain: Drain,
    /// Asked again when something about it changes.
    pass: StreamPass,
    /// The warnings, until they are told.
    first: Option<Vec<String>>,
    /// How many dropped messages the client knows of.
    told: u64,
}

impl Tapping {
    fn into_stream(self) -> TapStream {
        Box::pin(futures_util::stream::try_unfold(self, |mut tapping| async move {
            Ok(tapping.next().await?.map(|response| (response, tapping)))
        }))
    }

    async fn next(&mut self) -> Result<Option<pb::TapResponse>, Refusal> {
        if let Some(warnings) = self.first.take() {
            return Ok(Some(pb::TapResponse { warnings, ..Default::default() }));
        }
        let mut envelopes = Vec::new();
        loop {
            let seen = tokio::select! {
                biased;
                () = self.drain.clone().begun() => return Err(Refusal::draining()),
                () = self.pass.news() => {
                    self.pass.check(Deed::Observe, ANYONE)?;
                    continue;
                }
                seen = self.tap.next() => seen,
                () = tokio::time::sleep(TAP_NEWS_INTERVAL) => {
                    if self.tap.dropped() > self.told {
                        break;
                    }
                    continue;
                }
            };
            let Some(seen) = seen else { return Ok(None) };
            envelopes.push(words::envelope(&seen, &*self.clock));
            while envelopes.len() < TAP_RESPONSE_MAX {
                let Some(Some(seen)) = self.tap.next().now_or_never() else { break };
                envelopes.push(words::envelope(&seen, &*self.clock));
            }
            break;
        }
        self.told = self.tap.dropped();
        Ok(Some(pb::TapResponse { envelopes, dropped: self.told, warnings: Vec::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Caller;
    use crate::observe::Complaints;
    use slog::{Logger, o};
    use std::net::SocketAddr;
    use tonic::Code;

    fn call_of(peer: &str) -> Extensions {
        call_of_caller(peer, Caller::nobody())
    }

    fn call_of_caller(peer: &str, caller: Caller) -> Extensions {
        let clock = Arc::new(crate::model::ManualClock::default());
        let complaints = Complaints::new(clock, Logger::root(slog::Discard, o!()));
        let peer: SocketAddr = peer.parse().unwrap();
        let mut extensions = Extensions::new();
        extensions.insert(Client { peer, caller, complaints, seat: Default::default() });
        extensions
    }

    #[test]
    fn only_callers_on_the_nodes_machine_may_act() {
        for own in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(from_this_machine(&call_of(own)), Ok(()), "{own}");
        }
        assert_eq!(from_this_machine(&Extensions::new()), Ok(()), "within the process");
        for strange in ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1", "0.0.0.0:1"] {
            let status = Status::from(from_this_machine(&call_of(strange)).unwrap_err());
            assert_eq!(status.code(), Code::PermissionDenied, "{strange}");
            assert!(status.message().contains("do it there"), "{}", status.message());
        }
        let proved = Caller { proof: Proof::Certificate, ..Caller::nobody() };
        assert_eq!(from_this_machine(&call_of_caller("192.0.2.1:1", proved)), Ok(()));
    }
}
