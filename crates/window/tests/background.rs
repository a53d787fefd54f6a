//! What a picker does for readers that nobody waits for.

use std::time::Duration;

use pantala_core::{PieceIndex, Time};
use pantala_window::{Action, AttemptId, Class, Config, Event, ParentId, Picker, ReaderId};

const PARENT: ParentId = ParentId(1);

struct Driven {
    picker: Picker,
    now: Time,
}

impl Driven {
    /// Sixteen pieces for one reader.
    fn new() -> Self {
        let picker = Picker::new(Config::default(), 1 << 20, Time::ZERO);
        let mut this = Self {
            picker,
            now: Time::ZERO,
        };
        this.tell(Event::Ended { pieces: 64 });
        this.tell(Event::ReaderOpened {
            reader: ReaderId(1),
            first: PieceIndex::new(0),
            end: None,
        });
        this
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.picker.handle(self.now, event);
        std::iter::from_fn(|| self.picker.poll_action()).collect()
    }

    fn after(&mut self, pause: Duration) -> Vec<Action> {
        self.now = self.now + pause;
        self.tell(Event::Tick)
    }

    fn with_parent(mut self) -> (Self, Vec<AttemptId>) {
        self.tell(Event::ParentUp { parent: PARENT });
        let asked = self.tell(Event::ParentHolds {
            parent: PARENT,
            first: PieceIndex::new(0),
            count: 64,
        });
        let attempts = asked.iter().filter_map(|action| match action {
            Action::Fetch { attempt, .. } => Some(*attempt),
            _ => None,
        });
        let attempts: Vec<AttemptId> = attempts.collect();
        assert!(!attempts.is_empty());
        (self, attempts)
    }
}

fn asks(actions: &[Action]) -> usize {
    let asks = |action: &&Action| {
        matches!(
            action,
            Action::Fetch { .. } | Action::OpenRun { .. } | Action::AskLease { .. }
        )
    };
    actions.iter().filter(asks).count()
}

#[test]
fn a_parent_that_lets_others_go_first_is_not_late() {
    let mut driven = Driven::new();
    driven.tell(Event::Class(Class::Background));
    let (mut driven, _) = driven.with_parent();
    for _ in 0..100 {
        let actions = driven.after(Duration::from_millis(300));
        assert_eq!(actions, [], "nobody is blamed, nothing asked twice");
    }
    driven.tell(Event::Class(Class::Foreground));
    let actions = driven.after(Duration::from_secs(1));
    assert!(actions.contains(&Action::ReportSlow { parent: PARENT }));
}

#[test]
fn a_pause_lets_finish_what_is_under_way_and_asks_for_nothing() {
    let (mut driven, attempts) = Driven::new().with_parent();
    let (begun, waiting) = attempts.split_at(2);
    for &attempt in begun {
        driven.tell(Event::Progress { attempt, bytes: 1 });
    }
    let actions = driven.tell(Event::Class(Class::Paused));
    let cancelled = actions.iter().filter_map(|action| match action {
        Action::Cancel { attempt, .. } => Some(*attempt),
        _ => None,
    });
    assert_eq!(cancelled.collect::<Vec<_>>(), waiting);
    for (piece, &attempt) in (0..).map(PieceIndex::new).zip(begun) {
        let bytes = 1 << 20;
        let mut actions = driven.tell(Event::Fetched { attempt, bytes });
        actions.extend(driven.tell(Event::Sealed { piece }));
        actions.extend(driven.tell(Event::ReaderTook {
            reader: ReaderId(1),
            next: piece.next(),
        }));
        actions.extend(driven.after(Duration::from_millis(300)));
        assert_eq!(asks(&actions), 0, "{actions:?}");
        let cancelled = |action: &Action| matches!(action, Action::Cancel { .. });
        assert!(!actions.iter().any(cancelled), "{actions:?}");
    }
    let actions = driven.tell(Event::Class(Class::Background));
    assert!(asks(&actions) > 0, "it goes on where it stood");
}

#[test]
fn a_pause_gives_the_lease_back_when_what_comes_is_here() {
    let mut driven = Driven::new();
    let opened = driven.tell(Event::LeaseGranted {
        first: PieceIndex::new(0),
        end: None,
    });
    let run = opened.iter().find_map(|action| match action {
        Action::OpenRun { run, .. } => Some(*run),
        _ => None,
    });
    let (run, piece) = (run.unwrap(), PieceIndex::new(0));
    driven.tell(Event::RunAt { run, piece });
    driven.tell(Event::Class(Class::Paused));
    let back = Action::ReturnLease {
        first: piece.next(),
        end: None,
    };
    assert!(!driven.after(Duration::from_secs(1)).contains(&back));
    let actions = driven.tell(Event::Sealed { piece });
    assert!(actions.contains(&Action::StopRun { run }), "{actions:?}");
    assert!(actions.contains(&back), "{actions:?}");
}
