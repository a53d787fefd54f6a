//! A buffer's last holder may be the table of its task's pieces. Letting go of it there must not end
//! in that table again, by way of those who wait for memory and what is evicted for them.
#![cfg(not(feature = "loom"))]

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use pantala_core::{Geometry, PieceIndex, TaskId};
use pantala_store::{Budget, Eviction, PieceBuffer, Store, TaskPieces};

const PIECE: u64 = 8;
/// A lock that is never released makes a test wait for ever: longer than this is for ever.
const FOR_EVER: Duration = Duration::from_secs(20);

fn piece(number: u32) -> PieceIndex {
    PieceIndex::new(number)
}

fn buffer(budget: &Arc<Budget>) -> Arc<PieceBuffer> {
    let (buffer, mut writer) = PieceBuffer::charged(budget.try_charge(PIECE).expect("room"));
    writer.append(&[1; PIECE as usize]);
    buffer
}

/// Three buffers fill the memory: piece 0 is held, and an upload that has it lets go of it; piece 1 is
/// arriving, and only the table has it; the third is handed to `act`, which makes the table let go of
/// piece 1. It must end, and the memory of both pieces must go to who waits for it.
fn let_go(act: impl FnOnce(&Arc<TaskPieces>, Arc<PieceBuffer>) + Send + 'static) {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let budget = Budget::new(3 * PIECE);
        let store = Store::new(budget.clone(), Eviction::default());
        let pieces = store.open(TaskId::from_bytes([1; 32]), Geometry::new(None));
        let (upload, third) = (buffer(&budget), buffer(&budget));
        pieces.seal(piece(0), upload.clone());
        pieces.arrival(false).show(piece(1), &buffer(&budget));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let waiting = budget.clone();
            let waiting = tokio::spawn(async move { waiting.charge(2 * PIECE).await.bytes() });
            while budget.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            drop(upload);
            act(&pieces, third);
            assert_eq!(waiting.await.expect("no panic"), 2 * PIECE);
        });
        let _ = done.send(());
    });
    let ended = ended.recv_timeout(FOR_EVER);
    assert!(
        ended.is_ok(),
        "a lock was taken twice, or the memory went to nobody"
    );
}

#[test]
fn a_piece_is_given_up() {
    let_go(|pieces, third| {
        pieces.abandon(piece(1));
        std::mem::forget(third);
    });
}

#[test]
fn a_piece_is_complete_in_another_buffer() {
    let_go(|pieces, third| pieces.seal(piece(1), third));
}

#[test]
fn another_buffer_is_further() {
    let_go(|pieces, third| {
        pieces.arrival(true).show(piece(1), &third);
        std::mem::forget(third);
    });
}
