//! Who has a place among the children.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::seats::Seat;

/// Over sockets, since that is where children are turned away.
async fn listening(parent: &Arc<PeerServer>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    tokio::spawn(parent.clone().serve(listener));
    addr
}

async fn dial(to: SocketAddr) -> FrameReader<TcpStream> {
    FrameReader::new(TcpStream::connect(to).await.expect("the parent listens"))
}

/// All seats are taken by children that want something; the last of them has just said so.
async fn fill(parent: &Arc<PeerServer>) -> Vec<Asking> {
    let mut children = Vec::new();
    for number in 0..CHILDREN_HERE as u32 {
        let mut child = Asking::new(parent);
        child.say(&[want(number, 0)]).await;
        children.push(child);
    }
    settle().await;
    children
}

#[tokio::test]
async fn a_child_over_a_socket_is_greeted_and_let_go_when_the_peer_stops() {
    let parent = parent();
    let mut child = dial(listening(&parent).await).await;
    let hello = Incoming::Message(ToChild::hello(parent.me));
    assert_eq!(child.from_parent().await.expect("a frame"), Some(hello));
    assert_eq!(parent.metrics.children(), 1);
    parent.cancel.cancel();
    parent.tracker.close();
    parent.tracker.wait().await;
    assert_eq!(child.from_parent().await.expect("a clean end"), None);
    assert_eq!(parent.metrics.children(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_child_is_turned_away_when_all_others_want_something() {
    let parent = parent();
    let _content = Content::new(&parent, TASK);
    let mut busy = fill(&parent).await;
    let addr = listening(&parent).await;
    // It may notice that by the end of the connection or by its break.
    let heard = dial(addr).await.from_parent().await;
    assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    drop(busy.pop());
    settle().await;
    let hello = Incoming::Message(ToChild::hello(parent.me));
    let heard = dial(addr).await.from_parent().await;
    assert_eq!(heard.expect("a seat is free"), Some(hello));
}

#[tokio::test(start_paused = true)]
async fn the_child_that_wanted_nothing_for_longest_makes_room() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut children = fill(&parent).await;
    for (number, child) in children.iter_mut().enumerate().rev() {
        let request = number as u32;
        child.say(&[ToParent::Follow { task: TASK }]).await;
        child.say(&[ToParent::Cancel { request }]).await;
        settle().await;
    }
    let mut late = Asking::new(&parent);
    late.say(&[want(0, 0)]).await;
    content.hold(0);
    late.assert_served(0, 0, 0).await;
    let last = children.pop().expect("a child");
    last.end().await.expect_err("it makes room");
    assert!(children.iter().all(|child| !child.ended.is_finished()));
}

/// A child that asks for something at the moment in which it has to make room is served first, and goes then:
/// its seat is somebody else's already.
#[tokio::test(start_paused = true)]
async fn a_child_that_asked_while_it_had_to_make_room_goes_when_it_is_served() {
    // Which of the two is seen first is left to chance.
    for _ in 0..32 {
        let parent = parent();
        let _content = Content::of(&parent, TASK, 1);
        let mut child = Asking::new(&parent);
        child.say(&[ToParent::Follow { task: TASK }]).await;
        settle().await;
        let from = [127, 0, 0, 1].into();
        let seats = &parent.children;
        let others: Vec<_> = (1..CHILDREN_HERE).map(|_| seats.admit(from)).collect();
        let busy: Vec<_> = others.iter().flatten().map(Seat::begin).collect();
        child.say(&[want(0, 0)]).await;
        assert!(seats.admit(from).is_some(), "the child makes room");
        while let Ok(Some(_)) = timeout(FOR_EVER, child.next()).await {}
        assert!(child.ended.is_finished(), "it has left");
        drop(busy);
    }
}

/// A child that has been served, but has not heard so, is not sent away.
#[tokio::test(start_paused = true)]
async fn a_child_makes_no_room_before_it_has_heard_the_last_word() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 1);
    let mut child = Asking::over(&parent, 16);
    child.say(&[want(0, 0)]).await;
    let mut others = Vec::new();
    for _ in 1..CHILDREN_HERE {
        let mut other = Asking::new(&parent);
        other.say(&[want(1, 0)]).await;
        others.push(other);
    }
    for _ in 1..PIECE / pantala_core::BLOCK_MAX {
        assert!(matches!(child.next().await, Some(Heard::Block(0, _))));
    }
    leave_the_end(&mut child).await;
    let from = [127, 0, 0, 1].into();
    assert!(parent.children.admit(from).is_none(), "all want something");
    child.read.skip_data().await.expect("the rest");
    assert_eq!(child.next().await, Some(Heard::Done(0)));
    settle().await;
    assert!(
        parent.children.admit(from).is_some(),
        "it wants nothing more"
    );
    drop(content);
}
