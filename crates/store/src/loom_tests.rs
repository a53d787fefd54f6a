//! Models of what threads do to one task's pieces while somebody waits for memory, in every order
//! there is. loom fails a model in which a lock is never released or a waker is missed: all its threads stand
//! still then.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use loom::{
    sync::{Condvar, Mutex},
    thread,
};
use pantala_core::{Geometry, PieceIndex, TaskId};

use crate::{Budget, Eviction, PieceBuffer, Store, TaskPieces};

const PIECE: u64 = 8;

/// Runs a future on this thread of the model: it sleeps until it is woken.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Bell(Mutex<bool>, Condvar);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
    }

    let bell = Arc::new(Bell(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let mut rung = bell.0.lock().unwrap();
        while !*rung {
            rung = bell.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

fn piece(number: u32) -> PieceIndex {
    PieceIndex::new(number)
}

fn buffer(budget: &Arc<Budget>) -> Arc<PieceBuffer> {
    let (buffer, mut writer) = PieceBuffer::charged(budget.try_charge(PIECE).expect("room"));
    writer.append(&[1; PIECE as usize]);
    buffer
}

/// Runs a model in each order with at most two switches away from a thread that could go on: more find hardly
/// anything, and take hours.
fn check(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(run);
}

/// Piece 0 is held, and may leave once an upload has let go of it. Piece 1 is arriving: only the table has it. Another thread needs the
/// memory of both while `act` makes the table let go of piece 1.
fn model(act: fn(&Arc<TaskPieces>, Arc<PieceBuffer>)) {
    check(move || {
        let budget = Budget::new(3 * PIECE);
        let store = Store::new(budget.clone(), Eviction::default());
        let pieces = store.open(TaskId::from_bytes([1; 32]), Geometry::new(None));
        let third = buffer(&budget);
        let upload = buffer(&budget);
        pieces.seal(piece(0), upload.clone());
        pieces.arrival(false).show(piece(1), &buffer(&budget));
        let waiting = budget.clone();
        let waiting = thread::spawn(move || block_on(waiting.charge(2 * PIECE)).bytes());
        // Where this thread may stop, so that the other one looks for memory before and after.
        let _ = budget.waiting();
        drop(upload);
        act(&pieces, third);
        assert_eq!(waiting.join().unwrap(), 2 * PIECE);
        drop(store);
        drop(pieces);
        assert_eq!(budget.used(), 0, "all charges have ended");
    });
}

#[test]
fn loom_a_piece_is_given_up_while_memory_is_waited_for() {
    model(|pieces, _third| pieces.abandon(piece(1)));
}

#[test]
fn loom_a_piece_is_sealed_while_memory_is_waited_for() {
    model(|pieces, third| pieces.seal(piece(1), third));
}

#[test]
fn loom_a_buffer_is_replaced_while_memory_is_waited_for() {
    model(|pieces, third| {
        pieces.arrival(true).show(piece(1), &third);
        drop(third);
        pieces.abandon(piece(1));
    });
}

#[test]
fn loom_a_window_moves_on_while_memory_is_waited_for() {
    model(|pieces, third| {
        drop(third);
        pieces.set_pins(piece(0), 1);
        pieces.set_pins(piece(0), 0);
        pieces.abandon(piece(1));
    });
}

/// Two wait; the first one gives up. The other gets what is free.
#[test]
fn loom_who_leaves_the_line_hands_its_place_on() {
    check(|| {
        let budget = Budget::new(PIECE);
        let all = budget.try_charge(PIECE).expect("room");
        let other = budget.clone();
        let other = thread::spawn(move || block_on(other.charge(PIECE)).bytes());
        {
            let mut first = Box::pin(budget.charge(PIECE));
            let waker = Waker::noop();
            let polled = first.as_mut().poll(&mut Context::from_waker(waker));
            assert!(polled.is_pending(), "nothing is free yet");
        }
        drop(all);
        assert_eq!(other.join().unwrap(), PIECE);
        assert_eq!(budget.used(), 0);
    });
}
