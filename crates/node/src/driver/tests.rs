//! Tests of the end of a driver: it leaves no reader waiting and no task behind.

mod chaos;
mod fixture;
mod parents;
mod states;
mod table;

use pantala_core::{Geometry, Kind, ResourceKey, TaskId};
use pantala_store::{Budget, Eviction};

use super::*;
use crate::{rates::TaskRates, readers::OriginSource, stream::Counted};

const TASK: TaskId = TaskId::from_bytes([7; 32]);

fn leftovers() -> Leftovers {
    let tasks = Arc::new(Tasks::default());
    let store = Store::new(Budget::new(16 << 20), Eviction::default());
    let pieces = store.open(TASK, Geometry::new(Some(1 << 20)));
    let (handle, _) = tasks.get_or_insert(TASK, || {
        let key = ResourceKey::of_url("http://origin/file", b"", pantala_core::Class::Anonymous);
        let (meta, rates) = (Default::default(), TaskRates::default());
        let commands = mpsc::channel(1).0;
        Arc::new(TaskHandle::new(
            (TASK, key),
            String::new(),
            meta,
            pieces,
            rates,
            commands,
        ))
    });
    Leftovers {
        handle,
        tasks,
        store,
    }
}

fn source() -> OriginSource {
    OriginSource {
        url: "http://origin/file".parse().unwrap(),
        headers: Default::default(),
        allowed: true,
        asker: Default::default(),
    }
}

fn counted() -> Arc<Counted> {
    Counted::new(&watch::channel(0).0).into()
}

/// A driver that panics takes its readers and its place in the table of tasks along.
#[tokio::test]
async fn no_reader_waits_for_a_driver_that_panicked() {
    let leftovers = leftovers();
    let (handle, tasks) = (leftovers.handle.clone(), leftovers.tasks.clone());
    let reader = handle
        .readers
        .open(PieceIndex::new(0), None, source(), false, counted());
    let driver = tokio::spawn(async move {
        let _leftovers = leftovers;
        panic!("a defect");
    });
    assert!(driver.await.unwrap_err().is_panic());
    reader.waker.notified().await;
    assert_eq!(reader.failure().unwrap().kind(), Kind::Internal);
    assert!(tasks.get(&TASK).is_none() && handle.pieces.is_closed());
}

/// A driver that ends well has told its readers why; that stands.
#[tokio::test]
async fn what_a_driver_told_its_readers_stands() {
    let leftovers = leftovers();
    let handle = leftovers.handle.clone();
    let reader = handle
        .readers
        .open(PieceIndex::new(0), None, source(), false, counted());
    handle.readers.fail(&error::stopping());
    drop(leftovers);
    assert_eq!(reader.failure().unwrap().kind(), Kind::Cancelled);
}
