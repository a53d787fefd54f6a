//! Small ranges, as those ask for them who load a file lazily.

use crate::support::{Daemon, Origin, content, get};
use pantala_node::Prefetch;

const MIB: usize = 1 << 20;

async fn read(daemon: &Daemon, origin: &Origin, file: &[u8], start: usize, len: usize) {
    let range = format!("Range: bytes={start}-{}", start + len - 1);
    let answer = get(daemon.addr, origin.url("/f").as_str(), &range).await;
    assert_eq!((answer.status, answer.complete), (206, true), "{range}");
    assert!(answer.body == file[start..start + len], "{range}");
}

async fn start(prefetch: Prefetch) -> Daemon {
    Daemon::of(|node| node.prefetch = prefetch, |_| {}).await
}

/// Pieces that are here once there are as many as `enough` says.
async fn held(daemon: &Daemon, enough: impl Fn(usize) -> bool) -> usize {
    let mut looks = 0;
    loop {
        let views = daemon.node.streams().await;
        let held = views.first().map_or(0, |view| view.held);
        if enough(held) {
            return held;
        }
        looks += 1;
        assert!(looks < 2000, "{views:?} {:?}", daemon.node.totals());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn ranges_at_random_bring_their_pieces_and_no_more() {
    let file = content(40 * MIB);
    let origin = Origin::of_file(&file).await;
    let daemon = start(Prefetch::Window).await;
    for piece in [30, 3, 21, 37, 11] {
        read(&daemon, &origin, &file, piece * MIB + 12_345, 4096).await;
        read(&daemon, &origin, &file, piece * MIB + 654_321, 4096).await;
    }
    // What is not known yet is asked for by the largest piece there may be.
    let received = daemon.node.totals().origin_received;
    assert!(received <= (5 + 4) * MIB as u64, "{received}");
    daemon.stop().await;
}

#[tokio::test]
async fn what_follows_a_sequence_is_there_before_it_is_asked_for() {
    let file = content(24 * MIB);
    let origin = Origin::of_file(&file).await;
    let daemon = start(Prefetch::Window).await;
    for part in 0..4 {
        read(
            &daemon,
            &origin,
            &file,
            8 * MIB + part * 128 * 1024,
            128 * 1024,
        )
        .await;
    }
    // It has read half a MiB.
    held(&daemon, |held| held >= 2).await;
    daemon.stop().await;
}

#[tokio::test]
async fn nothing_is_read_ahead_unless_it_is_wanted() {
    let file = content(24 * MIB);
    let origin = Origin::of_file(&file).await;
    let daemon = start(Prefetch::None).await;
    for part in 0..8 {
        read(
            &daemon,
            &origin,
            &file,
            8 * MIB + part * 128 * 1024,
            128 * 1024,
        )
        .await;
    }
    assert!(held(&daemon, |held| held >= 1).await <= 4);
    daemon.stop().await;
}

#[tokio::test]
async fn a_part_brings_the_whole_where_that_is_wanted() {
    let file = content(12 * MIB);
    let origin = Origin::of_file(&file).await;
    let daemon = start(Prefetch::All).await;
    read(&daemon, &origin, &file, 5 * MIB, 4096).await;
    assert_eq!(held(&daemon, |held| held == 12).await, 12);
    daemon.stop().await;
}
