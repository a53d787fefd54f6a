//! The table of requests, without a driver.

use pantala_core::{Geometry, TaskId, Time};
use pantala_store::{Budget, Eviction, PieceWriter, TaskPieces};
use pantala_window::{AttemptId, Config, Failure, ParentId, ReaderId};

use super::super::{
    request::{Asked, Stage},
    requests::Requests,
    *,
};

const FIRST: PieceIndex = PieceIndex::new(0);
const PIECE: u64 = 64;
const ONE: AttemptId = AttemptId(1);
const TWO: AttemptId = AttemptId(2);

struct Table {
    store: Store,
    pieces: Arc<TaskPieces>,
    requests: Requests,
}

fn table() -> Table {
    let store = Store::new(Budget::new(4 * PIECE), Eviction::default());
    let pieces = store.open(TaskId::from_bytes([7; 32]), Geometry::new(Some(PIECE)));
    let requests = Requests::new(pieces.clone());
    Table {
        store,
        pieces,
        requests,
    }
}

impl Table {
    /// A request that has been handed to a link, which has the writer.
    fn ask(&mut self, attempt: AttemptId) -> PieceWriter {
        let charge = self.store.budget().try_charge(PIECE).expect("room");
        let (_, writer) = PieceBuffer::charged(charge);
        let hedge = attempt == TWO;
        let parent = ParentId(attempt.0);
        let left = self.requests.decided(attempt, FIRST, parent, 0, hedge);
        assert!(left.is_none());
        let asked = Asked::new(&self.pieces, &writer);
        self.requests.asked(attempt, asked);
        writer
    }

    /// The request's link has brought bytes.
    fn brings(&self, attempt: AttemptId, writer: &mut PieceWriter, bytes: &[u8]) {
        writer.append(bytes);
        let request = self.requests.get(attempt).expect("it is open");
        request.show_as_its_link_does();
    }

    fn shows_bytes(&self) -> bool {
        !self.pieces.unverified().is_empty()
    }
}

#[test]
fn each_state_follows_only_from_those_it_may() {
    use Stage::*;
    let all = [AwaitingRoom, Asked, Receiving, TurnedAway, Fetched];
    let legal = [
        (AwaitingRoom, Asked),
        // With what another left of the piece.
        (AwaitingRoom, Receiving),
        (Asked, TurnedAway),
        (Receiving, TurnedAway),
        // A piece is never empty, but its parent may say so.
        (Asked, Fetched),
        (Receiving, Fetched),
    ];
    for from in all {
        for to in all {
            assert_eq!(
                from.may_become(to),
                legal.contains(&(from, to)),
                "{from:?} {to:?}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "became")]
fn what_was_turned_away_cannot_come() {
    let mut table = table();
    let _writer = table.ask(ONE);
    table.requests.turned_away(ONE);
    table.requests.fetched(ONE);
}

/// The first of two for a piece has shown bytes, is over, and the second has none: nothing is shown once
/// that is over, too.
#[test]
fn the_last_request_for_a_piece_takes_along_what_another_has_shown() {
    for failure in [Failure::Gone, Failure::NotHere, Failure::Busy] {
        let mut table = table();
        let mut first = table.ask(ONE);
        let second = table.ask(TWO);
        table.brings(ONE, &mut first, b"abc");
        table.requests.failed(ONE, Failure::NotHere, Some(first));
        assert!(table.shows_bytes(), "children go on with it");
        match failure {
            Failure::Busy => {
                table.requests.turned_away(TWO);
                drop(second);
                assert_eq!(table.requests.end_turned_away(), [TWO]);
            }
            _ => table.requests.failed(TWO, failure, Some(second)),
        }
        assert!(!table.shows_bytes(), "{failure:?}");
        assert_eq!(table.store.budget().used(), 0);
    }
}

#[test]
fn what_a_broken_transfer_left_is_for_the_next_request_or_goes() {
    let mut table = table();
    let mut writer = table.ask(ONE);
    table.brings(ONE, &mut writer, b"abc");
    table.requests.failed(ONE, Failure::Gone, Some(writer));
    table.requests.keep_left(|piece| piece == FIRST);
    assert!(table.shows_bytes());
    let left = table.requests.decided(TWO, FIRST, ParentId(2), 0, false);
    let left = left.expect("the beginning");
    assert_eq!(left.position(), 3);
    let asked = Asked::new(&table.pieces, &left);
    table.requests.asked(TWO, asked);
    assert_eq!(
        table.requests.get(TWO).map(|two| two.stage()),
        Some(Stage::Receiving)
    );
    table.requests.failed(TWO, Failure::Gone, Some(left));
    table.requests.keep_left(|_| false);
    assert!(!table.shows_bytes());
    assert_eq!(table.store.budget().used(), 0);
}

/// A piece has come by another way while its first transfer broke: nothing is left of that.
#[test]
fn nothing_is_left_of_a_piece_that_is_held() {
    let mut table = table();
    let mut late = table.ask(ONE);
    table.brings(ONE, &mut late, b"abc");
    let charge = table.store.budget().try_charge(PIECE).expect("room");
    let (buffer, mut writer) = PieceBuffer::charged(charge);
    writer.append(&[7; PIECE as usize]);
    table.requests.sealed(FIRST);
    table.pieces.seal(FIRST, buffer);
    table.requests.failed(ONE, Failure::Gone, Some(late));
    drop(writer);
    assert_eq!(table.store.budget().used(), PIECE);
}

/// Two have brought a piece, and a third waits for memory to ask for it: one verdict ends all of them, because
/// a piece that somebody uses cannot be evicted.
#[test]
fn a_verdict_ends_all_requests_for_the_piece_that_no_link_has() {
    let mut table = table();
    let (mut first, mut second) = (table.ask(ONE), table.ask(TWO));
    let three = AttemptId(3);
    table.requests.decided(three, FIRST, ParentId(3), 0, true);
    for (attempt, writer) in [(ONE, &mut first), (TWO, &mut second)] {
        table.brings(attempt, writer, &[7; PIECE as usize]);
        assert!(table.requests.fetched(attempt));
    }
    assert_eq!(table.requests.next_to_judge(|_| false), None);
    assert_eq!(table.requests.next_to_judge(|_| true), Some(ONE));
    let (piece, buffer, parent) = table.requests.judged(ONE).expect("it has come");
    assert_eq!((piece, parent), (FIRST, Some(ParentId(1))));
    table.requests.sealed(piece);
    table.pieces.seal(piece, buffer);
    drop((first, second));
    assert!(table.requests.is_empty());
    assert_eq!(table.store.budget().used(), PIECE);
}

/// Wrong bytes of a request that went on with what another had begun may be either's.
#[test]
fn nobody_is_blamed_for_what_two_have_brought() {
    let mut table = table();
    let mut writer = table.ask(ONE);
    table.brings(ONE, &mut writer, b"abc");
    table.requests.failed(ONE, Failure::Gone, Some(writer));
    let left = table.requests.decided(TWO, FIRST, ParentId(2), 0, false);
    let mut left = left.expect("the beginning");
    let asked = Asked::new(&table.pieces, &left);
    table.requests.asked(TWO, asked);
    table.brings(TWO, &mut left, &[7; PIECE as usize - 3]);
    assert!(table.requests.fetched(TWO));
    let (_, _, blamed) = table.requests.judged(TWO).expect("it has come");
    assert_eq!(blamed, None);
}

/// A brain that has a request.
fn brain() -> Picker {
    let mut brain = Picker::new(Config::default(), PIECE, Time::ZERO);
    let parent = ParentId(1);
    for event in [
        Event::Ended { pieces: 1 },
        Event::ParentUp { parent },
        Event::ParentHolds {
            parent,
            first: FIRST,
            count: 1,
        },
        Event::ReaderOpened {
            reader: ReaderId(1),
            first: FIRST,
            end: None,
        },
    ] {
        brain.handle(Time::ZERO, event);
    }
    while brain.poll_action().is_some() {}
    assert_eq!(brain.requests().count(), 1);
    brain
}

#[test]
fn brain_and_table_agree() {
    let mut table = table();
    let brain = brain();
    let decided = brain.requests().next().expect("one");
    let _writer = table.ask(decided.attempt);
    assert!(table.requests.check(&brain, |_| true));
}

#[test]
#[should_panic(expected = "only the brain knows")]
fn a_request_that_nobody_carries_out_is_found() {
    table().requests.check(&brain(), |_| true);
}

#[test]
#[should_panic(expected = "the brain has forgotten")]
fn a_request_that_nobody_wants_is_found() {
    let mut table = table();
    let _writer = table.ask(TWO);
    let empty = Picker::new(Config::default(), PIECE, Time::ZERO);
    table.requests.check(&empty, |_| true);
}

#[test]
#[should_panic(expected = "bytes are shown that nobody brings")]
fn bytes_that_nobody_brings_are_found() {
    let table = table();
    let charge = table.store.budget().try_charge(PIECE).expect("room");
    let (buffer, mut writer) = PieceBuffer::charged(charge);
    writer.append(b"a");
    table.pieces.arrival(false).show(FIRST, &buffer);
    let empty = Picker::new(Config::default(), PIECE, Time::ZERO);
    table.requests.check(&empty, |_| true);
}
