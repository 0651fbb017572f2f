//! The way of one partition's batches: over a stream to the leader, and over another one to the next
//! leader when that ends. What is decided of batches is in [`Window`]; this drives it.

use super::producer::{Delivered, ProducerOptions};
use super::window::Window;
use super::{ClusterClient, Way};
use crate::guards::{Classify, ErrorClass, chance_of_machine};
use crate::model::Chance;
use crate::wire::client::{Acks, Answer, ClientError, ProducerSink, Refusal, Target};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tonic::Code;

/// Leaders that are followed in a row without a pause; more are a quarrel among nodes.
const HINTS_MAX: u32 = 3;

type Reply = oneshot::Sender<Result<Delivered, ClientError>>;

/// A batch on its way into a lane.
#[derive(Debug)]
pub struct Submitted {
    /// One whole batch.
    pub batch: Bytes,
    /// How many records it holds.
    pub records: u32,
    /// Whom to tell its fate.
    pub reply: Reply,
}

/// How a stream ended.
enum End {
    /// All that was sent on it is answered.
    Answered,
    /// It broke, could not be opened, or was too slow.
    Broken(ClientError),
    /// The oldest batch's time is over.
    Expired,
}

/// See the module.
#[derive(Debug)]
pub struct Lane {
    cluster: ClusterClient,
    target: Target,
    options: ProducerOptions,
    incoming: mpsc::Receiver<Submitted>,
    window: Window<Reply>,
    chance: Chance,
    /// Nothing more is submitted.
    is_closed: bool,
    /// A batch failed, and those behind it are not to be stored.
    is_stopped: bool,
    /// A batch behind the oldest one is stored, on the present stream.
    is_overtaken: bool,
    /// Streams in a row on which nothing was stored.
    fruitless: u32,
    last_error: Option<String>,
}

impl Lane {
    pub fn new(
        cluster: ClusterClient,
        target: Target,
        options: ProducerOptions,
        incoming: mpsc::Receiver<Submitted>,
    ) -> Self {
        let mut chance = chance_of_machine();
        let window = Window::new(options.idempotent.then(|| producer_id(&mut chance)));
        Self {
            cluster,
            target,
            options,
            incoming,
            window,
            chance,
            is_closed: false,
            is_stopped: false,
            is_overtaken: false,
            fruitless: 0,
            last_error: None,
        }
    }

    /// Sends until nothing more comes and everything is told its fate.
    pub async fn run(mut self) {
        loop {
            if self.window.is_empty() {
                match self.incoming.recv().await {
                    Some(submitted) => self.accept(submitted),
                    None => return,
                }
                continue;
            }
            self.window.begin();
            self.is_overtaken = false;
            let way = match self.options.follow_leader {
                true => self.in_time(self.cluster.clone().way_to(&self.target.clone())).await,
                false => self.in_time(self.cluster.clone().only_way()).await,
            };
            let (asked, end) = match way {
                Some(Ok(way)) => {
                    let asked = way.client.address().to_owned();
                    let end = self.stream(way).await;
                    if self.fruitless == 0 || self.window.refusal().is_some() {
                        self.cluster.let_in(&asked);
                    }
                    (asked, end)
                }
                Some(Err(error)) => (String::new(), End::Broken(error)),
                None => (String::new(), End::Expired),
            };
            let pause = self.judge(&asked, end);
            if !self.window.is_empty() {
                let left = self.left().unwrap_or_default();
                tokio::time::sleep(pause.min(left)).await;
            }
        }
    }

    fn accept(&mut self, submitted: Submitted) {
        let Submitted { batch, records, reply } = submitted;
        if self.is_stopped {
            tell(reply, Err(stopped()));
        } else {
            let deadline = self.cluster.now() + self.options.deadline;
            self.window.push(batch, records, deadline, reply);
        }
    }

    /// How long the oldest batch has left.
    fn left(&self) -> Option<Duration> {
        Some(self.window.deadline()?.saturating_sub(self.cluster.now()))
    }

    /// What `work` gives; `None` where the oldest batch's time is over first.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let left = self.left().unwrap_or(self.options.deadline);
        tokio::time::timeout(left, work).await.ok()
    }

    async fn stream(&mut self, way: Way) -> End {
        let Way { mut client, no_forward } = way;
        let opening = client.produce_stream(self.target.clone(), self.options.outstanding_max);
        let opened =
            match self.in_time(tokio::time::timeout(self.options.answer_max, opening)).await {
                None => return End::Expired,
                Some(Err(_)) => return End::Broken(silent()),
                Some(Ok(Err(error))) => return End::Broken(error),
                Some(Ok(Ok(opened))) => opened,
            };
        let (sink, acks) = opened;
        self.converse(sink.no_forward(no_forward), acks).await
    }

    /// Sends and reads answers, until something is refused, the stream ends, or nothing is left.
    async fn converse(&mut self, sink: ProducerSink, mut acks: Acks) -> End {
        let mut sink = Some(sink);
        let mut heard = self.cluster.now();
        loop {
            while let Some(open) = &mut sink
                && let Some(batch) = self.window.send()
            {
                if open.send(batch).await.is_err() {
                    // The answers tell why.
                    sink = None;
                }
            }
            if self.is_closed && self.window.is_empty() {
                return End::Answered;
            }
            let now = self.cluster.now();
            if !self.window.is_waiting() {
                heard = now;
            }
            let mut patience = self.left();
            if self.options.idempotent && self.window.is_waiting() {
                let quiet = (heard + self.options.answer_max).saturating_sub(now);
                patience = patience.map(|left| left.min(quiet));
            }
            let has_room = sink.is_some() && !self.is_closed;
            let has_room = has_room && self.window.len() < self.options.outstanding_max;
            tokio::select! {
                biased;
                answer = acks.next() => {
                    heard = self.cluster.now();
                    match answer {
                        Ok(Some(Answer::Ack(ack))) => {
                            self.fruitless = 0;
                            self.is_overtaken |= self.window.refusal().is_some();
                            if let Some(reply) = self.window.stored() {
                                let partition = self.target.partition;
                                tell(reply, Ok(Delivered { partition, ack }));
                            }
                        }
                        Ok(Some(Answer::Refused { refusal, .. })) => {
                            self.window.refused(refusal);
                            // Nothing may overtake it: the rest is answered, then all goes again.
                            sink = None;
                        }
                        Ok(None) => return End::Answered,
                        Err(error) => return End::Broken(error),
                    }
                }
                submitted = self.incoming.recv(), if has_room => match submitted {
                    Some(submitted) => self.accept(submitted),
                    None => self.is_closed = true,
                },
                () = sleep(patience) => {
                    return if self.left().is_some_and(|left| left.is_zero()) {
                        End::Expired
                    } else {
                        End::Broken(silent())
                    };
                }
            }
        }
    }

    /// What becomes of the oldest batch after a stream has ended; returns how long to pause.
    fn judge(&mut self, asked: &str, end: End) -> Duration {
        self.fruitless = self.fruitless.saturating_add(1);
        let pause = self.cluster.0.options.pauses;
        let pause = pause.pause(self.fruitless - 1, self.chance.fraction());
        if self.window.is_empty() {
            return Duration::ZERO;
        }
        let error = match (self.window.refusal().cloned(), end) {
            (_, End::Expired) => {
                let after = self.options.deadline;
                let definite = !self.window.is_unknown();
                let source = self.last_error.take().map(Into::into);
                self.cluster.lost(asked);
                self.give_up(ClientError::Deadline { after, definite, source });
                return Duration::ZERO;
            }
            (Some(refusal), _) => ClientError::Refused(refusal),
            (None, End::Broken(error)) => error,
            (None, End::Answered) => {
                let source = "it ended before everything was answered".into();
                ClientError::Lost { address: asked.into(), source }
            }
        };
        if let Some(error) = self.cluster.ends_with(&error, self.window.is_unknown()) {
            self.give_up(error);
            return Duration::ZERO;
        }
        if !self.may_go_again(&error) {
            self.give_up(error);
            return Duration::ZERO;
        }
        self.last_error = Some(crate::model::with_causes(&error));
        if self.left().is_some_and(|left| left.is_zero()) {
            // What fails at once leaves no wait in which the time could run out.
            return self.judge(asked, End::Expired);
        }
        match &error {
            ClientError::Refused(Refusal { leader: Some(leader), .. })
                if leader.address != asked =>
            {
                let is_news = self.cluster.follow(&self.target, leader);
                if is_news && self.fruitless <= HINTS_MAX { Duration::ZERO } else { pause }
            }
            ClientError::Refused(refusal) => {
                // Who names itself and refuses knows no better: others may.
                if refusal.code == Code::Unavailable || refusal.leader.is_some() {
                    self.cluster.leaderless(&self.target);
                }
                refusal.retry_after.map_or(pause, |after| after.max(pause))
            }
            _ => {
                self.cluster.lost(asked);
                self.cluster.leaderless(&self.target);
                pause
            }
        }
    }

    /// Whether to send the oldest batch again after this.
    fn may_go_again(&self, error: &ClientError) -> bool {
        let is_safe = self.options.idempotent || !self.window.is_unknown() && !self.is_overtaken;
        let may_pass = match error {
            ClientError::Refused(refusal) if refusal.leader.is_some() => self.options.follow_leader,
            // A node that refuses without saying when to come back may be replaced by another.
            ClientError::Refused(refusal) if refusal.retry_after.is_none() && refusal.definite => {
                refusal.code == Code::Unavailable
                    && self.options.follow_leader
                    && self.cluster.routes().replicas(&self.target).len() > 1
            }
            ClientError::Refused(refusal) if !refusal.definite => true,
            // Others may let it in.
            error if error.turned_away().is_some() => self.options.follow_leader,
            error => error.class() == ErrorClass::Retryable,
        };
        is_safe && may_pass
    }

    fn give_up(&mut self, error: ClientError) {
        let after = self.options.deadline;
        let mut error = Some(match error {
            ClientError::Refused(refusal) => {
                let definite = refusal.definite && !self.window.is_unknown();
                let mut message = refusal.message;
                if self.is_overtaken {
                    message += " (and a batch behind it is stored)";
                }
                ClientError::Refused(Refusal { definite, message, ..refusal })
            }
            error => error,
        });
        for given_up in self.window.give_up(producer_id(&mut self.chance)) {
            let source = Some("a batch before it failed".into());
            let behind = ClientError::Deadline { after, definite: !given_up.is_unknown, source };
            tell(given_up.reply, Err(error.take().unwrap_or(behind)));
        }
        self.fruitless = 0;
        if self.options.stop_at_failure {
            self.is_stopped = true;
            while !self.window.is_empty() {
                for given_up in self.window.give_up(0) {
                    tell(given_up.reply, Err(stopped()));
                }
            }
        }
    }
}

fn tell(reply: Reply, fate: Result<Delivered, ClientError>) {
    // Whoever dropped the receipt does not want to know.
    let _unwanted = reply.send(fate);
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// 63 bits by chance: two producers that draw the same are not expected in the life of a cluster.
fn producer_id(chance: &mut Chance) -> i64 {
    (chance.next_u64() >> 1) as i64
}

/// The node is there and says nothing.
fn silent() -> ClientError {
    ClientError::Lost { address: String::new(), source: "the node does not answer".into() }
}

fn stopped() -> ClientError {
    ClientError::Refused(Refusal {
        code: Code::Aborted,
        message: "not sent, for a batch before it failed".into(),
        retry_after: None,
        definite: true,
        leader: None,
    })
}

/// The runtime that sent it is gone.
pub fn ended() -> ClientError {
    ClientError::Lost { address: String::new(), source: "the producer has ended".into() }
}
