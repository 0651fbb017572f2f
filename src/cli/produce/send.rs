//! Hands batches to the cluster's producer, and keeps the ledger of what becomes of them.

use super::encode::Encoded;
use super::ledger::{Ledger, Sent};
use crate::cli::progress::Progress;
use crate::cli::{Class, Failure};
use crate::ops::signals::StopSignal;
use crate::wire::client::{ClientError, ClusterProducer, Delivered, Place};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;

/// Batches whose fate is not settled: more than partitions can have outstanding need not be known.
const UNSETTLED_MAX: usize = 1024;

/// The batches to send.
pub type Batches = mpsc::Receiver<Result<Encoded, Failure>>;

/// One command's sending, from the first batch to the last answer.
#[derive(Debug)]
pub struct Sending {
    /// Where to, unless keys decide; `None`: each partition in turn.
    pub partition: Option<u32>,
    /// What became of each batch.
    pub ledger: Ledger,
    /// For people.
    pub progress: Progress,
}

impl Sending {
    /// Sends everything. What was acknowledged is in the ledger however it ends.
    pub async fn run(
        &mut self,
        producer: &mut ClusterProducer,
        batches: &mut Batches,
    ) -> Result<(), Failure> {
        let work = self.send_all(producer, batches);
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => {
                Err(Failure::new(Class::Signal(StopSignal::Interrupt), "interrupted"))
            }
        }
    }

    /// Sends what comes until the input ends or a batch fails, and waits for every answer. A failure
    /// of the input is told last: what came before it is answered first.
    async fn send_all(
        &mut self,
        producer: &mut ClusterProducer,
        batches: &mut Batches,
    ) -> Result<(), Failure> {
        let mut open = FuturesOrdered::new();
        let mut input = Ok(true);
        loop {
            let goes_on = matches!(input, Ok(true)) && !self.ledger.has_failed();
            if !goes_on && open.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some((sent, fates)) = open.next() => self.settle(sent, fates),
                next = batches.recv(), if goes_on && open.len() < UNSETTLED_MAX => match next {
                    None => input = Ok(false),
                    Some(Err(failure)) => input = Err(failure),
                    Some(Ok(encoded)) => {
                        let sent = self.ledger.sent(&encoded);
                        let mut receipts = Vec::new();
                        for (chosen, batch) in encoded.batches {
                            let partition = chosen.or(self.partition);
                            let place = partition.map_or(Place::Any, Place::Partition);
                            receipts.push(producer.send(place, batch).await);
                        }
                        open.push_back(async move {
                            let mut fates = Vec::new();
                            for receipt in receipts {
                                fates.push(match receipt {
                                    Ok(receipt) => receipt.await,
                                    Err(error) => Err(error),
                                });
                            }
                            (sent, fates)
                        });
                    }
                },
            }
        }
        if let Some((error, is_overtaken)) = self.ledger.failure() {
            let failure = Failure::from(error);
            if !is_overtaken {
                return Err(failure);
            }
            let error = "the node refused a batch and stored one behind it";
            return Err(Failure { error: error.into(), ..failure });
        }
        input.map(|_| ())
    }

    fn settle(&mut self, sent: Sent, fates: Vec<Result<Delivered, ClientError>>) {
        if let Some((records, bytes)) = self.ledger.settle(sent, fates) {
            self.progress.advance(records, bytes);
        }
    }
}
