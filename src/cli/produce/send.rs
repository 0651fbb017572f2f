//! Sends batches over a stream, keeps the ledger, and sends again what was refused for now.

use super::encode::Encoded;
use super::ledger::{Ledger, Next};
use crate::cli::progress::Progress;
use crate::cli::{Class, Failure};
use crate::ops::signals::StopSignal;
use crate::wire::client::{Acks, Answer, Client, ClientError, ProducerSink, Target};
use std::cell::RefCell;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Refusals in a row after which it is given up, however politely they asked to come back.
const TRIES_MAX: u32 = 200;
/// The least wait before the next try, so that those tries span some seconds.
const WAIT_MIN: Duration = Duration::from_millis(50);

/// The batches to send.
pub type Batches = mpsc::Receiver<Result<Encoded, Failure>>;

/// One command's sending, from the first batch to the last answer.
#[derive(Debug)]
pub struct Sending {
    /// Where to.
    pub target: Target,
    /// Unanswered requests at once.
    pub outstanding_max: usize,
    /// What became of each batch.
    pub ledger: Ledger,
    /// For people.
    pub progress: Progress,
}

impl Sending {
    /// Sends everything. What was acknowledged is in the ledger however it ends.
    pub async fn run(&mut self, client: &mut Client, batches: &mut Batches) -> Result<(), Failure> {
        let work = self.send_all(client, batches);
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => {
                Err(Failure::new(Class::Signal(StopSignal::Interrupt), "interrupted"))
            }
        }
    }

    async fn send_all(
        &mut self,
        client: &mut Client,
        batches: &mut Batches,
    ) -> Result<(), Failure> {
        let mut tries = 0;
        let mut failed_input = None;
        loop {
            let before = self.ledger.totals().records;
            failed_input = self.one_stream(client, batches).await?.or(failed_input);
            if self.ledger.totals().records > before {
                tries = 0;
            }
            match self.ledger.next() {
                Next::Done => return failed_input.map_or(Ok(()), Err),
                Next::Again(after) if tries < TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(after.max(WAIT_MIN)).await;
                }
                Next::Again(_) => {
                    return Err(Failure::new(Class::Temporary, "the node refuses for too long")
                        .advice("`duramen describe` tells the state of the log"));
                }
                Next::Unanswered => {
                    return Err(Failure::new(
                        Class::Unavailable,
                        "the node ended the stream early",
                    )
                    .cause("some batches were not answered: their outcome is unknown"));
                }
                Next::Refused(refusal) => return Err(ClientError::Refused(refusal).into()),
                Next::OutOfOrder(refusal) => {
                    let failure = Failure::from(ClientError::Refused(refusal));
                    let error = "the node refused a batch and stored one behind it";
                    return Err(Failure { error: error.into(), ..failure });
                }
            }
        }
    }

    /// Sends what is left and then what comes, until the input ends or something is refused;
    /// returns when every request is answered. A failure of the input is returned as a value:
    /// what came before it is answered first.
    async fn one_stream(
        &mut self,
        client: &mut Client,
        batches: &mut Batches,
    ) -> Result<Option<Failure>, Failure> {
        let left = self.ledger.again();
        let (sink, acks) = client.produce_stream(self.target.clone(), self.outstanding_max).await?;
        let ledger = RefCell::new(&mut self.ledger);
        let refused = Notify::new();
        let (failed_input, ()) = tokio::try_join!(
            send(sink, left, batches, &ledger, &refused),
            answer(acks, &ledger, &mut self.progress, &refused),
        )?;
        Ok(failed_input)
    }
}

/// Sends until the input ends, something is refused, or the stream is over (the answers tell why).
async fn send(
    mut sink: ProducerSink,
    left: Vec<Encoded>,
    batches: &mut Batches,
    ledger: &RefCell<&mut Ledger>,
    refused: &Notify,
) -> Result<Option<Failure>, Failure> {
    for encoded in left {
        // Already in the ledger: all of it is sent, for answers are counted from its front.
        if sink.send(encoded.batch).await.is_err() {
            return Ok(None);
        }
    }
    loop {
        let next = tokio::select! {
            biased;
            () = refused.notified() => return Ok(None),
            next = batches.recv() => next,
        };
        match next {
            None => return Ok(None),
            Some(Err(failure)) => return Ok(Some(failure)),
            Some(Ok(encoded)) => {
                ledger.borrow_mut().sent(encoded.clone());
                if sink.send(encoded.batch).await.is_err() {
                    return Ok(None);
                }
            }
        }
    }
}

async fn answer(
    mut acks: Acks,
    ledger: &RefCell<&mut Ledger>,
    progress: &mut Progress,
    refused: &Notify,
) -> Result<(), Failure> {
    while let Some(answer) = acks.next().await? {
        match answer {
            Answer::Ack(ack) => {
                let (records, bytes) = ledger.borrow_mut().stored(ack);
                progress.advance(records, bytes);
            }
            Answer::Refused { refusal, .. } => {
                ledger.borrow_mut().refused(refusal);
                refused.notify_one();
            }
        }
    }
    Ok(())
}
