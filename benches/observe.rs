//! What it costs that a message is on record, with nobody looking: the share of this in the cost of
//! a request is the share of seeing in the whole.

#![allow(missing_docs, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use duramen::model::{Clock, SystemClock};
use duramen::observe::{Answer, Hub, HubLimits, MailLoad, Mailbox, Receipt, Stamp};
use slog::{Discard, Logger, o};
use std::hint::black_box;
use std::sync::Arc;

fn a_message(c: &mut Criterion) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let hub = Hub::new(Logger::root(Discard, o!()), None, HubLimits::default());
    let recorder = hub.recorder("node/partitions/log/0/raft", &clock);
    let mailbox = Mailbox::of_new_life(&recorder);
    let load = MailLoad { items: 1, bytes: 100 };
    let mut group = c.benchmark_group("observe");
    group.throughput(Throughput::Elements(1));
    group.bench_function("send and handle", |bencher| {
        bencher.iter(|| {
            let stamp = Stamp::now(&*clock);
            drop(mailbox.post());
            drop(recorder.begin(black_box(&stamp), "Propose", load, String::new));
        });
    });
    group.bench_function("send, handle and answer", |bencher| {
        bencher.iter(|| {
            let stamp = Stamp::now(&*clock);
            drop(mailbox.post());
            let handled = recorder.begin(black_box(&stamp), "Propose", load, String::new);
            let receipt = Receipt::of_current();
            drop(handled);
            recorder.answered(stamp.sent_at, [(receipt, Answer::Ok)]);
        });
    });
    group.finish();
}

criterion_group!(benches, a_message);
criterion_main!(benches);
