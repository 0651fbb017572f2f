//! A partition in memory: obeys the seam's contract, and fails or waits when a test says so.

use bytes::{BufMut, Bytes, BytesMut};
use duramen::actors::partition::{
    Ack, AckSender, Chunk, PartitionApi, PartitionState, PartitionStatus, PendingAck, ProduceError,
    ReadError, ReplicaRole,
};
use duramen::model::{Durability, Offset, Record, ReplicaId, Term, Timestamp};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

const BATCH_HEADER_BYTES: usize = 61;

/// What one request appended.
struct Unit {
    base: Offset,
    raw: Bytes,
    records: Vec<Record>,
}

#[derive(Default)]
struct State {
    start: u64,
    units: Vec<Unit>,
    refusals: VecDeque<ProduceError>,
    unreadable: Option<ReadError>,
    read_errors: VecDeque<ReadError>,
    /// `Some`: acknowledgements wait for the test to release them.
    held: Option<VecDeque<(AckSender, Ack)>>,
    proposals: usize,
    follows: bool,
    read_index: Option<u64>,
    partition_state: Option<(PartitionState, String)>,
}

/// The double.
#[derive(Clone)]
pub struct MemoryPartition {
    state: Arc<Mutex<State>>,
    end: Arc<watch::Sender<Offset>>,
}

impl MemoryPartition {
    pub fn new() -> Self {
        Self { state: Arc::default(), end: Arc::new(watch::Sender::new(Offset(0))) }
    }

    /// The next proposal is refused so.
    pub fn refuse_next(&self, error: ProduceError) {
        self.state.lock().unwrap().refusals.push_back(error);
    }

    /// The next read fails so.
    pub fn fail_next_read(&self, error: ReadError) {
        self.state.lock().unwrap().read_errors.push_back(error);
    }

    /// From now on, as in recovery, nothing can be read for this reason; its bounds say empty.
    pub fn is_unreadable(&self, error: ReadError) {
        self.state.lock().unwrap().unreadable = Some(error);
    }

    /// From now on acknowledgements wait for [`Self::release`].
    pub fn hold(&self) {
        self.state.lock().unwrap().held = Some(VecDeque::new());
    }

    /// Sends the oldest held acknowledgement; false when there is none.
    pub fn release(&self) -> bool {
        let held = self.state.lock().unwrap().held.as_mut().and_then(VecDeque::pop_front);
        held.map(|(sender, ack)| sender.send(Ok(ack))).is_some()
    }

    /// Drops the oldest held acknowledgement, as an actor that dies does.
    pub fn lose(&self) {
        let held = self.state.lock().unwrap().held.as_mut().and_then(VecDeque::pop_front);
        drop(held.expect("an acknowledgement is held"));
    }

    /// How many proposals have reached the partition.
    pub fn proposals(&self) -> usize {
        self.state.lock().unwrap().proposals
    }

    /// Forgets everything below `start`, as retention does.
    pub fn forget_below(&self, start: u64) {
        self.state.lock().unwrap().start = start;
    }

    /// The state that it reports.
    pub fn report(&self, state: PartitionState, reason: &str) {
        self.state.lock().unwrap().partition_state = Some((state, reason.to_owned()));
    }

    /// From now on another replica leads.
    pub fn follows(&self) {
        self.state.lock().unwrap().follows = true;
    }

    /// What was acknowledged anywhere, as the leader says.
    pub fn read_index_is(&self, offset: u64) {
        self.state.lock().unwrap().read_index = Some(offset);
    }

    /// All values that it holds.
    pub fn values(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let records = state.units.iter().flat_map(|unit| &unit.records);
        let text = |record: &Record| {
            let value = record.value.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
            String::from_utf8(value).unwrap()
        };
        records.map(text).collect()
    }

    /// Appends values at once.
    pub fn fill(&self, values: &[&str]) {
        let values = values.iter().map(|value| value.as_bytes().to_vec());
        let records = values.zip(0..).map(|(value, at)| Record::of_value(value, Timestamp(at)));
        self.append(records.collect(), None).expect("nothing is refused");
    }

    fn append(&self, records: Vec<Record>, raw: Option<Bytes>) -> Result<PendingAck, ProduceError> {
        let mut state = self.state.lock().unwrap();
        state.proposals += 1;
        if let Some(error) = state.refusals.pop_front() {
            return Err(error);
        }
        let base = *self.end.borrow();
        let count = records.len() as u32;
        let timestamp = records.iter().map(|record| record.timestamp).max().unwrap_or_default();
        let raw = raw.unwrap_or_else(|| fake_batch(count, &records));
        state.units.push(Unit { base, raw, records });
        let ack =
            Ack { base_offset: base, records: count, timestamp, durability: Durability::Fsync };
        let (sender, pending) = PendingAck::channel();
        match &mut state.held {
            Some(held) => held.push_back((sender, ack)),
            None => sender.send(Ok(ack)),
        }
        self.end.send_replace(base.plus(count.into()));
        Ok(pending)
    }

    fn check(&self, from: Offset) -> Result<(), ReadError> {
        let mut state = self.state.lock().unwrap();
        if let Some(error) = state.read_errors.pop_front() {
            return Err(error);
        }
        let (start, end) = (Offset(state.start), *self.end.borrow());
        if from < start || from > end {
            return Err(ReadError::OutOfRange { offset: from, start, end });
        }
        Ok(())
    }
}

/// Bytes with a batch's length and the number of records where a batch has it, and nothing else
/// of a real one.
pub fn fake_batch(count: u32, records: &[Record]) -> Bytes {
    let mut bytes = BytesMut::zeroed(BATCH_HEADER_BYTES);
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    for record in records {
        bytes.put_slice(record.value.as_deref().unwrap_or_default());
    }
    bytes.freeze()
}

impl PartitionApi for MemoryPartition {
    fn propose_records(&self, records: Vec<Record>) -> Result<PendingAck, ProduceError> {
        self.append(records, None)
    }

    fn propose_batches(&self, raw: Bytes) -> Result<PendingAck, ProduceError> {
        let Some(count) = raw.get(57..61) else {
            return Err(ProduceError::Invalid { message: "batch is cut short".into() });
        };
        let count = u32::from_be_bytes(count.try_into().expect("4 bytes"));
        self.append(vec![Record::default(); count as usize], Some(raw))
    }

    fn readable(&self) -> Result<(), ReadError> {
        self.state.lock().unwrap().unreadable.clone().map_or(Ok(()), Err)
    }

    fn start_offset(&self) -> Offset {
        Offset(self.state.lock().unwrap().start)
    }

    fn high_watermark(&self) -> Offset {
        *self.end.borrow()
    }

    fn watch(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }

    async fn read_batches(&self, from: Offset, max_bytes: usize) -> Result<Chunk, ReadError> {
        self.check(from)?;
        let state = self.state.lock().unwrap();
        let mut bytes = BytesMut::new();
        let mut chunk = Chunk { batches: Bytes::new(), base: from, next: from, records: 0 };
        for unit in &state.units {
            let count = unit.records.len() as u64;
            let fits = bytes.is_empty() || bytes.len() + unit.raw.len() <= max_bytes;
            if unit.base.plus(count) <= from || !fits {
                continue;
            }
            if chunk.records == 0 {
                chunk.base = unit.base;
            }
            bytes.put_slice(&unit.raw);
            chunk.records += count;
            chunk.next = unit.base.plus(count);
        }
        chunk.batches = bytes.freeze();
        Ok(chunk)
    }

    async fn read_records(
        &self,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<(Offset, Record)>, ReadError> {
        self.check(from)?;
        let state = self.state.lock().unwrap();
        let offsets = |unit: &Unit| {
            (0..).map({
                let base = unit.base;
                move |at| base.plus(at)
            })
        };
        let all = state.units.iter().flat_map(|unit| offsets(unit).zip(unit.records.clone()));
        let mut bytes = 0;
        let fits = |(_, record): &(Offset, Record)| {
            let first = bytes == 0;
            bytes += record.value.as_ref().map_or(0, |value| value.len()).max(1);
            first || bytes <= max_bytes
        };
        let wanted = all.filter(|(offset, _)| *offset >= from);
        Ok(wanted.take(max_records).take_while(fits).collect())
    }

    async fn find_time(&self, at: Timestamp) -> Result<Offset, ReadError> {
        let found = self.read_records(self.start_offset(), usize::MAX, usize::MAX).await?;
        let found = found.into_iter().find(|(_, record)| record.timestamp >= at);
        Ok(found.map_or(self.high_watermark(), |(offset, _)| offset))
    }

    async fn read_index(&self) -> Result<Offset, ReadError> {
        let asked = self.state.lock().unwrap().read_index;
        Ok(asked.map_or_else(|| self.high_watermark(), Offset))
    }

    fn is_follower(&self) -> bool {
        self.state.lock().unwrap().follows
    }

    fn describe(&self) -> PartitionStatus {
        let state = self.state.lock().unwrap();
        let (partition_state, reason) =
            state.partition_state.clone().unwrap_or((PartitionState::Serving, String::new()));
        PartitionStatus {
            state: partition_state,
            reason,
            start: Offset(state.start),
            high_watermark: *self.end.borrow(),
            size_bytes: 1234,
            segments: 1,
            term: Term(2),
            durability: Durability::Fsync,
            flushes: 5,
            refused: 6,
            restarts: 7,
            role: ReplicaRole::Leader,
            leader: Some(ReplicaId::FIRST),
            replicas: Vec::new(),
            source_end: None,
        }
    }
}
