//! What a connection costs: clients that come, ask once and go; and what a crowd that does no more than
//! greet does to another client, which has been there all along.

use super::BenchError;
use super::load::{self, Sample, Window};
use super::process::{Reach, connect};
use crate::model::{Clock, SystemClock};
use crate::wire::pb::duramen::v1 as pb;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// So many come at once: half of the handshakes that a port has under way at most …
pub const CROWD: u32 = 256;
/// … and the next so long after.
pub const CROWD_EVERY: Duration = Duration::from_millis(200);

/// A client that comes, asks once and goes.
async fn visit(reach: &Reach) -> Result<(), BenchError> {
    // What it asks shows that it was let in: within TLS 1.3 a client cannot know that by itself.
    connect(reach).await?.describe(pb::DescribeRequest { topic: "log".into() }).await?;
    Ok(())
}

/// So many clients at a time, one after the other each.
pub async fn visits(reach: &Reach, at_once: usize, window: Window) -> Result<Sample, BenchError> {
    let clock = SystemClock::new();
    let stop = window.warmup + window.measured;
    let mut visitors = JoinSet::new();
    for _ in 0..at_once {
        let (reach, clock) = (reach.clone(), clock.clone());
        visitors.spawn(async move {
            let (mut sample, mut now) = (Sample::empty(), clock.monotonic());
            while now < stop {
                let began = now;
                visit(&reach).await?;
                now = clock.monotonic();
                sample.count(1, began, now, window.warmup);
            }
            Ok::<_, BenchError>(sample)
        });
    }
    let mut sample = Sample::empty();
    while let Some(visited) = visitors.join_next().await {
        sample.merge(&visited.expect("a visitor does not panic")?);
    }
    sample.seconds = window.measured.as_secs_f64();
    Ok(sample)
}

/// What a client says first: a greeting of TLS, or the preface of HTTP/2. Said again by others it costs
/// them nothing, and the node what an answer costs.
async fn greeting(reach: &Reach) -> Result<Vec<u8>, BenchError> {
    let odd = "cannot listen to a client's greeting";
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(BenchError::io(odd))?;
    let addr = listener.local_addr().map_err(BenchError::io(odd))?.to_string();
    let listening = async {
        let (mut stream, _) = listener.accept().await?;
        let mut said = vec![0; 16 << 10];
        let length = stream.read(&mut said).await?;
        said.truncate(length);
        Ok(said)
    };
    let here = Reach { addr, ..reach.clone() };
    // Nobody answers it: that is no fault.
    let (said, _) = tokio::join!(listening, connect(&here));
    said.map_err(BenchError::io(odd))
}

/// Says it, hears the beginning of the answer, and goes.
async fn greet(addr: &str, greeting: &[u8]) -> Result<(), BenchError> {
    let lost = || BenchError::io(format!("{addr} does not answer a greeting"));
    let mut stream = TcpStream::connect(addr).await.map_err(lost())?;
    stream.write_all(greeting).await.map_err(lost())?;
    stream.read_u8().await.map_err(lost())?;
    Ok(())
}

/// One producer in lock step while crowds come, greet and go, on a thread of their own.
pub async fn beside(
    reach: &Reach,
    record_bytes: usize,
    window: Window,
) -> Result<Sample, BenchError> {
    let greeting = greeting(reach).await?;
    let producer = load::connected(reach, 1).await?;
    let (is_over, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let crowds = {
        let (addr, is_over, came) = (reach.addr.clone(), Arc::clone(&is_over), Arc::clone(&came));
        std::thread::Builder::new()
            .name("crowds".into())
            .spawn(move || crowds(&addr, greeting.into(), &is_over, &came))
            .map_err(BenchError::io("cannot start the thread of the crowds"))?
    };
    let sample = load::lock_step(producer, false, record_bytes, window).await;
    is_over.store(true, Ordering::Relaxed);
    crowds.join().expect("a crowd does not panic")?;
    let mut sample = sample?;
    sample.visits = came.load(Ordering::Relaxed);
    Ok(sample)
}

fn crowds(
    addr: &str,
    greeting: Bytes,
    is_over: &AtomicBool,
    came: &AtomicU64,
) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::io("cannot start the runtime of the crowds"))?;
    runtime.block_on(async {
        let mut next = tokio::time::interval(CROWD_EVERY);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !is_over.load(Ordering::Relaxed) {
            next.tick().await;
            let mut crowd = JoinSet::new();
            for _ in 0..CROWD {
                let (addr, greeting) = (addr.to_owned(), greeting.clone());
                crowd.spawn(async move { greet(&addr, &greeting).await });
            }
            while let Some(greeted) = crowd.join_next().await {
                greeted.expect("nobody in a crowd panics")?;
                came.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })
}
