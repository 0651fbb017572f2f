//! memberlist's own UDP and TCP behind the gate: packets go on when they were looked through,
//! connections when their one message is here as a whole.
//!
//! Reading is bounded in bytes, in time and in number. The oldest of too many gives way: a node that
//! is there has sent its message in milliseconds, however many others only hold their places.

use super::gate::{Gate, Id, Way};
use crate::observe::metrics::GossipRefused;
use memberlist::agnostic::tokio::TokioRuntime;
use memberlist::bytes::{Buf, Bytes, BytesMut};
use memberlist::net::error::NetTransportError;
use memberlist::net::resolver::socket_addr::SocketAddrResolver;
use memberlist::net::stream_layer::tcp::{Tcp, TcpStream};
use memberlist::net::{NetTransport, NetTransportOptions};
use memberlist::proto::{Payload, ProtoReader, ProtoWriter};
use memberlist::transport::{
    Connection, PacketProducer, PacketSubscriber, StreamProducer, StreamSubscriber, Transport,
    packet_stream, promised_stream,
};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Packets that wait to be looked at, and to be taken.
const PACKETS_WAITING_MAX: usize = 64;
/// Read at once.
const READ_BYTES: usize = 8 << 10;

type Resolver = SocketAddrResolver<TokioRuntime>;
type Layer = Tcp<TokioRuntime>;
type Inner = NetTransport<Id, Resolver, Layer, TokioRuntime>;
type InnerStream = TcpStream<TokioRuntime>;
type Failure = NetTransportError<Resolver>;

/// What is opened, and who is let through.
pub struct GatedOptions {
    net: NetTransportOptions<Id, Resolver, Layer>,
    gate: Arc<Gate>,
}

impl GatedOptions {
    /// Of the node `id`, where `addr` is.
    pub fn new(id: Id, addr: SocketAddr, advertise: Option<SocketAddr>, gate: Arc<Gate>) -> Self {
        let mut net = NetTransportOptions::new(id).with_packet_buffer_size(PACKETS_WAITING_MAX);
        net.add_bind_address(addr);
        if let Some(advertise) = advertise {
            net = net.with_advertise_address(advertise);
        }
        Self { net, gate }
    }
}

/// See the module.
pub struct Gated {
    inner: Inner,
    gate: Arc<Gate>,
    packets: PacketSubscriber<SocketAddr, Instant>,
    streams: StreamSubscriber<SocketAddr, GatedStream>,
}

async fn pass_packets(
    gate: Arc<Gate>,
    come: PacketSubscriber<SocketAddr, Instant>,
    go: PacketProducer<SocketAddr, Instant>,
) {
    while let Ok(packet) = come.recv().await {
        let from = *packet.from();
        if gate.takes_packet(from, packet.payload()).await && go.try_send(packet).is_err() {
            gate.refuse(GossipRefused::Rate, from);
        }
    }
}

async fn pass_streams(
    gate: Arc<Gate>,
    come: StreamSubscriber<SocketAddr, InnerStream>,
    go: StreamProducer<SocketAddr, GatedStream>,
) {
    let answering = Arc::new(Semaphore::new(gate.connections_max));
    let mut reading = JoinSet::new();
    let mut by_age = VecDeque::<(AbortHandle, SocketAddr)>::new();
    loop {
        let (from, stream) = tokio::select! {
            come = come.recv() => match come {
                Ok(come) => come,
                Err(_) => return,
            },
            Some(_) = reading.join_next(), if !reading.is_empty() => continue,
        };
        if !gate.takes_connection(from.ip()) {
            gate.refuse(GossipRefused::Rate, from);
            continue;
        }
        by_age.retain(|(one, _)| !one.is_finished());
        if by_age.len() >= gate.connections_max
            && let Some((oldest, its)) = by_age.pop_front()
        {
            oldest.abort();
            gate.refuse(GossipRefused::Crowded, its);
        }
        let (gate, answering, go) = (Arc::clone(&gate), Arc::clone(&answering), go.clone());
        let one = reading.spawn(async move {
            let mut stream = GatedStream::new(stream);
            let read = tokio::time::timeout(gate.message_timeout, stream.reader.fill(&gate));
            let read = read.await.unwrap_or(Err(Unread::Refused(GossipRefused::Late)));
            let seat = read.and_then(|()| {
                let seat = answering.try_acquire_owned();
                seat.map_err(|_| Unread::Refused(GossipRefused::Crowded))
            });
            match seat {
                Ok(seat) => {
                    stream.writer.seat = Some(seat);
                    // An error says that gossip has ended.
                    drop(go.send(from, stream).await);
                }
                Err(Unread::Refused(why)) => gate.refuse(why, from),
                Err(Unread::Lost(_)) => gate.refuse(GossipRefused::Unreadable, from),
            }
        });
        by_age.push_back((one, from));
    }
}

impl Transport for Gated {
    type Error = Failure;
    type Id = Id;
    type Address = SocketAddr;
    type ResolvedAddress = SocketAddr;
    type Resolver = Resolver;
    type Connection = GatedStream;
    type Runtime = TokioRuntime;
    type Options = GatedOptions;

    async fn new(GatedOptions { net, gate }: GatedOptions) -> Result<Self, Failure> {
        let inner = Inner::new(net).await?;
        let (packets_in, packets) = packet_stream::<Self>(PACKETS_WAITING_MAX);
        let (streams_in, streams) = promised_stream::<Self>();
        // Both end with the inner transport.
        tokio::spawn(pass_packets(Arc::clone(&gate), inner.packet(), packets_in));
        tokio::spawn(pass_streams(Arc::clone(&gate), inner.stream(), streams_in));
        Ok(Self { inner, gate, packets, streams })
    }

    async fn resolve(&self, addr: &SocketAddr) -> Result<SocketAddr, Failure> {
        self.inner.resolve(addr).await
    }

    fn local_id(&self) -> &Id {
        self.inner.local_id()
    }

    fn local_address(&self) -> &SocketAddr {
        self.inner.local_address()
    }

    fn advertise_address(&self) -> &SocketAddr {
        self.inner.advertise_address()
    }

    fn max_packet_size(&self) -> usize {
        self.inner.max_packet_size()
    }

    fn header_overhead(&self) -> usize {
        self.inner.header_overhead()
    }

    fn blocked_address(&self, addr: &SocketAddr) -> Result<(), Failure> {
        self.inner.blocked_address(addr)
    }

    /// What was read before it was handed on is here; of what this node opened it is read now.
    async fn read(&self, _: &SocketAddr, reader: &mut Reader) -> Result<usize, Failure> {
        match reader.fill(&self.gate).await {
            Ok(()) => Ok(0),
            Err(Unread::Lost(error)) => Err(error.into()),
            Err(Unread::Refused(why)) => {
                let why = format!("the answer is not taken ({})", why.name());
                Err(Failure::Custom(why.into()))
            }
        }
    }

    async fn send_to(
        &self,
        addr: &SocketAddr,
        packet: Payload,
    ) -> Result<(usize, Instant), Failure> {
        if !self.gate.may_answer(*addr, packet.as_slice().len()) {
            // Lost on its way, as packets are.
            return Ok((0, Instant::now()));
        }
        self.inner.send_to(addr, packet).await
    }

    async fn open(&self, addr: &SocketAddr, deadline: Instant) -> Result<GatedStream, Failure> {
        self.inner.open(addr, deadline).await.map(GatedStream::new)
    }

    fn packet(&self) -> PacketSubscriber<SocketAddr, Instant> {
        self.packets.clone()
    }

    fn stream(&self) -> StreamSubscriber<SocketAddr, GatedStream> {
        self.streams.clone()
    }

    fn packet_reliable(&self) -> bool {
        self.inner.packet_reliable()
    }

    fn packet_secure(&self) -> bool {
        self.inner.packet_secure()
    }

    fn stream_secure(&self) -> bool {
        self.inner.stream_secure()
    }

    async fn shutdown(&self) -> Result<(), Failure> {
        self.inner.shutdown().await
    }
}

/// Why there is no message.
enum Unread {
    Refused(GossipRefused),
    Lost(io::Error),
}

impl From<GossipRefused> for Unread {
    fn from(why: GossipRefused) -> Self {
        Self::Refused(why)
    }
}

/// A connection: one message comes, one or none goes.
pub struct GatedStream {
    reader: Reader,
    writer: Writer,
}

impl GatedStream {
    fn new(stream: InnerStream) -> Self {
        let (reader, writer) = stream.split();
        let reader = Reader { inner: reader, message: Bytes::new(), is_filled: false };
        Self { reader, writer: Writer { inner: writer, seat: None } }
    }
}

/// Holds the message; there is nothing to be read before it is whole, and nothing behind it.
pub struct Reader {
    inner: <InnerStream as Connection>::Reader,
    message: Bytes,
    is_filled: bool,
}

impl Reader {
    async fn fill(&mut self, gate: &Gate) -> Result<(), Unread> {
        if self.is_filled {
            return Ok(());
        }
        let (mut bytes, mut buffer) = (BytesMut::new(), vec![0; READ_BYTES]);
        let len = loop {
            match gate.frame_len(&bytes)? {
                Some(len) if bytes.len() >= len => break len,
                _ => {}
            }
            match self.inner.read(&mut buffer).await.map_err(Unread::Lost)? {
                0 => return Err(Unread::Lost(io::ErrorKind::UnexpectedEof.into())),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        };
        bytes.truncate(len);
        gate.look_through(&bytes, Way::Stream).await?;
        (self.message, self.is_filled) = (bytes.freeze(), true);
        Ok(())
    }

    fn peeked(&self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.message.len());
        buffer[..count].copy_from_slice(&self.message[..count]);
        count
    }

    fn whole(count: usize, buffer: &[u8]) -> io::Result<()> {
        if count == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl ProtoReader for Reader {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.peeked(buffer);
        self.message.advance(count);
        Ok(count)
    }

    async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let count = self.read(buffer).await?;
        Self::whole(count, buffer)
    }

    async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.peeked(buffer))
    }

    async fn peek_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        Self::whole(self.peeked(buffer), buffer)
    }
}

/// Counts as one that is answered, as long as it is there.
pub struct Writer {
    inner: <InnerStream as Connection>::Writer,
    seat: Option<OwnedSemaphorePermit>,
}

impl ProtoWriter for Writer {
    async fn close(&mut self) -> io::Result<()> {
        ProtoWriter::close(&mut self.inner).await?;
        self.seat = None;
        Ok(())
    }

    async fn write_all(&mut self, payload: &[u8]) -> io::Result<()> {
        ProtoWriter::write_all(&mut self.inner, payload).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        ProtoWriter::flush(&mut self.inner).await
    }
}

impl Connection for GatedStream {
    type Reader = Reader;
    type Writer = Writer;

    fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).await
    }

    async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer).await
    }

    async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.peek(buffer).await
    }

    async fn peek_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.peek_exact(buffer).await
    }

    async fn write_all(&mut self, payload: &[u8]) -> io::Result<()> {
        self.writer.write_all(payload).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.writer.close().await
    }
}
