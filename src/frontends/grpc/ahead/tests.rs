//! What was read ahead, without a connection.

use super::*;
use futures_util::task::noop_waker_ref;
use std::collections::VecDeque;
use std::convert::Infallible;

const WINDOW: u32 = 32 << 10;
const MUCH: u64 = WINDOWS_MAX * WINDOW as u64;

/// What comes for a call. Wakes whoever waits for it.
#[derive(Clone, Default)]
struct Coming(Arc<Mutex<(VecDeque<usize>, Option<Waker>)>>);

impl Coming {
    fn comes(&self, bytes: usize) {
        let mut coming = self.0.lock().unwrap();
        coming.0.push_back(bytes);
        if let Some(waker) = coming.1.take() {
            waker.wake();
        }
    }
}

impl Body for Coming {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut coming = self.0.lock().unwrap();
        let Some(bytes) = coming.0.pop_front() else {
            coming.1 = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(Some(Ok(Frame::data(vec![0; bytes].into()))))
    }
}

struct One {
    coming: Coming,
    taken: Taken<Coming>,
}

impl One {
    fn new(of: &Ahead) -> Self {
        let coming = Coming::default();
        Self { taken: of.of_call(coming.clone()), coming }
    }

    /// So much is read of the connection, and among it a frame of so much for the call.
    fn comes(&self, read: u64, bytes: usize) {
        self.taken.call.connection.read(read, 1);
        self.coming.comes(bytes);
    }

    /// Takes what one frame has brought, if there is one.
    fn takes(&mut self) -> bool {
        let mut cx = Context::from_waker(noop_waker_ref());
        Pin::new(&mut self.taken).poll_frame(&mut cx).is_ready()
    }
}

fn port() -> Pace {
    Pace::new(WINDOW, Arc::default())
}

fn kept(port: &Pace) -> u64 {
    port.0.kept.load(Ordering::Relaxed)
}

/// Other things are read of a connection.
fn read(of: &Ahead, bytes: u64) {
    of.read(bytes, 0);
}

#[test]
fn what_was_read_since_something_came_is_kept_until_that_is_taken() {
    let port = port();
    let connection = port.of_connection();
    let mut call = One::new(&connection);
    assert!(!call.takes());
    read(&connection, MUCH);
    assert_eq!(kept(&port), 0, "nothing of it was for the call");
    call.comes(1_000, 1);
    read(&connection, 5_000);
    assert_eq!(kept(&port), 5_000 + ENTRY_BYTES, "what came with it");
    call.comes(1_000, 1);
    read(&connection, MUCH);
    assert_eq!(kept(&port), 2 * BLOCK_BYTES, "no more than two frames can keep");
    assert!(call.takes());
    assert_eq!(kept(&port), BLOCK_BYTES);
    assert!(call.takes() && !call.takes());
    assert_eq!(kept(&port), 0);
}

#[test]
fn what_calls_leave_that_end_is_gone_with_them() {
    let port = port();
    let connection = port.of_connection();
    let calls = [(); 3].map(|()| One::new(&connection));
    for call in &calls {
        call.comes(MUCH, 1);
    }
    assert_eq!(kept(&port), 3 * BLOCK_BYTES);
    drop(calls);
    assert_eq!(kept(&port), 0);
    let call = One::new(&connection);
    call.comes(MUCH, 1);
    assert_eq!(kept(&port), BLOCK_BYTES);
    drop(call);
    read(&connection, MUCH);
    assert_eq!(kept(&port), 0);
}

#[test]
fn a_call_that_never_takes_all_keeps_little_more_than_a_window_of_what_only_it_sends() {
    let port = port();
    let connection = port.of_connection();
    let mut call = One::new(&connection);
    let frame = WINDOW / STEPS as u32;
    for _ in 0..STEPS {
        call.comes(frame.into(), frame as usize);
    }
    for _ in 0..100 {
        call.comes(frame.into(), frame as usize);
        assert!(call.takes());
        assert!(kept(&port) <= u64::from(2 * WINDOW + frame), "{}", kept(&port));
    }
    assert!(kept(&port) >= u64::from(WINDOW), "{}", kept(&port));
}

#[test]
fn where_much_is_kept_a_connection_is_read_on_when_its_calls_have_taken() {
    let port = port();
    let [hoards, other, idle] = [(); 3].map(|()| port.of_connection());
    let mut hoarding = One::new(&hoards);
    let mut taking = One::new(&other);
    let mut resting = One::new(&idle);
    for call in [&mut hoarding, &mut taking, &mut resting] {
        assert!(!call.takes());
    }
    let may_read = |of: &Ahead| of.reading().may_go_on;
    let mut crumbs = 0;
    while may_read(&hoards) {
        hoarding.comes(BLOCK_BYTES, 1);
        crumbs += 1;
    }
    assert!(port.0.is_much() && kept(&port) < MUCH + 3 * BLOCK_BYTES, "{}", kept(&port));
    assert!(may_read(&other) && may_read(&idle));
    // What others take beside it does not help.
    for _ in 0..10 {
        let mut call = One::new(&hoards);
        call.comes(LITTLE, LITTLE as usize);
        assert!(call.takes() && !call.takes() && !may_read(&hoards));
    }
    // One whose calls have something to take is read on when they have taken it.
    for _ in 0..3 {
        taking.comes(LITTLE, LITTLE as usize);
    }
    assert!(!may_read(&other));
    for _ in 0..2 {
        assert!(!may_read(&other) && taking.takes());
    }
    assert!(may_read(&other) && taking.takes(), "one frame is little");
    // Who has taken all is read, whatever others do not take.
    resting.comes(10 * LITTLE, LITTLE as usize);
    assert!(resting.takes() && !resting.takes() && may_read(&idle));
    assert!(!may_read(&hoards));
    for _ in 0..crumbs {
        assert!(hoarding.takes());
    }
    assert!(may_read(&hoards) && kept(&port) == 0);
}

#[test]
fn a_stalled_call_is_no_burden_to_another_of_its_connection() {
    let port = port();
    let [hoards, honest] = [(); 2].map(|()| port.of_connection());
    let stalled = One::new(&honest);
    for _ in 0..WINDOW as u64 / LITTLE {
        stalled.comes(LITTLE, LITTLE as usize);
    }
    let hoarding = One::new(&hoards);
    while !port.0.is_much() {
        hoarding.comes(BLOCK_BYTES, 1);
    }
    let mut busy = One::new(&honest);
    for _ in 0..1_000 {
        assert!(honest.reading().may_go_on);
        busy.comes(LITTLE, LITTLE as usize);
        assert!(busy.takes() && !busy.takes());
    }
}

#[test]
fn what_came_before_its_call_began_is_not_taken_for_nobodys() {
    let port = port();
    let connection = port.of_connection();
    connection.turn();
    for _ in 0..10 {
        connection.read(BLOCK_BYTES, 20);
        assert_eq!(connection.reading().drawn, 0);
    }
    let [mut takes, rests] = [(); 2].map(|()| One::new(&connection));
    takes.coming.0.lock().unwrap().0.extend([1; 190]);
    rests.coming.0.lock().unwrap().0.extend([1; 10]);
    while takes.takes() {}
    for _ in 0..3 {
        connection.turn();
        assert_eq!(connection.reading().drawn, 190);
    }
    assert_eq!(kept(&port), 10 * BLOCK_BYTES);
}

#[test]
fn what_came_for_no_call_is_gone_in_the_next_turn() {
    let connection = port().of_connection();
    connection.turn();
    connection.read(10 * FRAMES_MAX, FRAMES_MAX + 1);
    let reading = connection.reading();
    assert!(reading.is_crowded && reading.is_unsettled && !reading.may_go_on, "{reading:?}");
    connection.turn();
    let reading = connection.reading();
    assert!(reading.is_free && !reading.is_unsettled, "{reading:?}");
}

#[test]
fn what_a_call_leaves_is_gone_with_it_also_beside_one_that_stands() {
    let connection = port().of_connection();
    let [stands, ends] = [(); 2].map(|()| One::new(&connection));
    stands.comes(10, 1);
    for _ in 0..5 {
        ends.comes(10, 1);
    }
    let taken = || connection.0.state().taken;
    assert_eq!((connection.reading().drawn, taken()), (0, 0));
    drop(ends);
    // Nobody took it: that is no progress.
    assert_eq!((connection.reading().drawn, taken()), (0, 5));
}

#[test]
fn frames_that_lie_there_are_few_however_small_they_are() {
    let connection = port().of_connection();
    let mut call = One::new(&connection);
    let mut came = 0;
    while connection.reading().may_go_on {
        call.comes(10, 1);
        came += 1;
    }
    assert_eq!(came, FRAMES_MAX + 1);
    assert!(call.takes() && connection.reading().is_free);
}
