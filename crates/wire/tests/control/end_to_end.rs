use std::time::Instant;

use pantala_core::control::FromPeer;
use pantala_wire::control::{SessionEvent, Trunk};
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpListener, net::TcpStream};

use crate::support::{Link, Peer, Server, ended, hello, pulse, soon};

#[tokio::test]
async fn messages_go_both_ways_in_order() {
    let mut server = Server::start().await;
    let mut peer = Peer::at(server.addr);
    let advertised = peer.up().await;
    assert_eq!(advertised, "127.0.0.1:65002".parse().unwrap());
    assert!(peer.control.is_up());
    assert!((0..500).all(|n| peer.control.send(pulse(n))));

    let (session, hello, outbox) = server.connected().await;
    assert_eq!(hello.peer.addr, advertised);
    assert_eq!(hello.labels, [("zone".to_owned(), "a".to_owned())]);
    for n in 0..500 {
        assert_eq!(server.message().await, pulse(n));
    }
    assert!((0..500).all(|n| outbox.send(ended(n))));
    for n in 0..500 {
        assert_eq!(peer.message().await, ended(n));
    }

    // What is queued when the peer stops is still said.
    assert!(peer.control.send(pulse(500)));
    peer.cancel.cancel();
    assert_eq!(server.message().await, pulse(500));
    assert_eq!(server.gone().await, session);
    assert!(!outbox.send(ended(0)));
    soon(peer.control.stopped()).await;
    assert!(!peer.control.is_up());
    assert!(!peer.control.send(pulse(0)));
    assert!(peer.events.recv().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_lone_message_does_not_wait() {
    let mut server = Server::start().await;
    let mut peer = Peer::at(server.addr);
    peer.up().await;
    let (_, _, outbox) = server.connected().await;
    let mut took = Vec::new();
    for n in 0..50 {
        let start = Instant::now();
        assert!(peer.control.send(pulse(n)));
        assert_eq!(server.message().await, pulse(n));
        assert!(outbox.send(ended(n)));
        assert_eq!(peer.message().await, ended(n));
        took.push(start.elapsed());
    }
    took.sort();
    // Delayed acknowledgements would make it 40 ms and more; the median is not the machine's
    // worst moment.
    assert!(took[25].as_millis() < 20, "{took:?}");
}

#[tokio::test]
async fn a_supernode_that_restarts_is_met_again() {
    let mut server = Server::start().await;
    let addr = server.addr;
    let mut peer = Peer::at(addr);
    peer.up().await;
    server.connected().await;
    server.stop().await;
    peer.down().await;
    assert!(!peer.control.is_up());
    assert!(!peer.control.send(pulse(0)), "a lost message was taken");

    let mut server = Server::on(TcpListener::bind(addr).await.unwrap());
    peer.up().await;
    assert!(peer.control.send(pulse(1)));
    let _session = server.connected().await;
    assert_eq!(server.message().await, pulse(1));
    server.stop().await;
}

#[tokio::test]
async fn the_next_supernode_of_the_list_serves() {
    let mut server = Server::start().await;
    // Accepts, and never says a word.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = free.local_addr().unwrap();
    drop(free);
    let names = [refusing, hung.local_addr().unwrap(), server.addr].map(|addr| addr.to_string());
    let mut peer = Peer::start(&names);
    peer.up().await;
    let _session = server.connected().await;
}

#[tokio::test]
async fn down_is_told_once_when_nobody_answers() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let mut peer = Peer::start(&[addr.to_string(), "nobody.invalid:1".to_owned()]);
    peer.down().await;
    let mut server = Server::on(TcpListener::bind(addr).await.unwrap());
    peer.up().await;
    let _session = server.connected().await;
}

#[tokio::test]
async fn who_accepts_and_says_nothing_is_no_supernode() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = Peer::at(mute.local_addr().unwrap());
    peer.down().await;
    assert!(!peer.control.is_up() && !peer.control.send(pulse(1)));
    // The same in every later attempt: three of them are accepted, none is told.
    for _ in 0..4 {
        soon(mute.accept()).await.unwrap();
    }
    assert!(peer.events.try_recv().is_err());
    assert!(!peer.control.is_up());
}

#[tokio::test]
async fn who_resets_connections_is_no_supernode() {
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = rude.local_addr().unwrap();
    let resets = tokio::spawn(async move {
        for _ in 0..4 {
            let (stream, _) = rude.accept().await.unwrap();
            stream.set_zero_linger().unwrap();
        }
    });
    let mut peer = Peer::at(addr);
    peer.down().await;
    soon(resets).await.unwrap();
    assert!(peer.events.try_recv().is_err());
}

#[tokio::test]
async fn what_is_said_early_comes_along_with_the_first_hello_that_is_answered() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut server = Server::start().await;
    let mute = mute.local_addr().unwrap().to_string();
    let mut peer = Peer::start(&[mute, server.addr.to_string()]);
    assert!(peer.control.send(pulse(1)) && peer.control.send(pulse(2)));
    assert!(!peer.control.is_up());
    peer.up().await;
    assert!(peer.control.send(pulse(3)));
    let _session = server.connected().await;
    for bytes in 1..=3 {
        assert_eq!(server.message().await, pulse(bytes));
    }
}

#[tokio::test]
async fn a_closed_outbox_ends_the_session() {
    let mut server = Server::start().await;
    let mut peer = Peer::at(server.addr);
    peer.up().await;
    let (first, _, outbox) = server.connected().await;
    outbox.close();
    peer.down().await;
    assert_eq!(server.gone().await, first);
    peer.up().await;
    let (second, _, outbox) = server.connected().await;
    assert_ne!(first, second);

    // Who takes nothing is not waited for: the outbox fills, and says so.
    let sent = (0..1_000_000)
        .take_while(|&n| outbox.send(ended(n)))
        .count();
    assert!((16_384..1_000_000).contains(&sent), "{sent}");
    drop(outbox);
}

#[tokio::test]
async fn a_peer_that_says_too_much_begins_anew() {
    let mut server = Server::start().await;
    let mut peer = Peer::at(server.addr);
    peer.up().await;
    let (first, _, outbox) = server.connected().await;
    // Nobody takes the server's events: the window fills, then the peer's queue.
    let huge = |n| {
        FromPeer::Register(pantala_core::control::Register {
            key: pantala_core::ResourceKey::from_bytes([1; 32]),
            serial: pantala_core::control::Serial::new(1),
            shown: "x".repeat(60_000),
            start: n,
            content: None,
        })
    };
    let sent = (0..100_000)
        .take_while(|&n| peer.control.send(huge(n)))
        .count();
    assert!((4096..100_000).contains(&sent), "{sent}");
    let reason = peer.down().await;
    assert!(reason.contains("4096"), "{reason}");
    peer.up().await;
    // The first session's messages as far as they came, and its end; the second may come between.
    let mut second = None;
    loop {
        match server.event().await {
            SessionEvent::Message { session, .. } => assert_eq!(session, first),
            SessionEvent::Gone { session, .. } => break assert_eq!(session, first),
            // Its outbox is kept, or the session would end.
            connected @ SessionEvent::Connected { .. } => second = Some(connected),
        }
    }
    if second.is_none() {
        server.connected().await;
    }
    assert!(!outbox.send(ended(0)));
}

#[tokio::test]
async fn other_paths_share_the_port() {
    let server = Server::start().await;
    let mut plain = TcpStream::connect(server.addr).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut answer = String::new();
    soon(plain.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("ok"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_slow_node_loses_nothing() {
    let mut server = Server::start().await;
    let link = Link::to(server.addr).await;
    let mut peer = Peer::at(link.addr);
    peer.up().await;
    let (_, _, outbox) = server.connected().await;
    // More than the client's event queue: the rest waits in the socket and the outbox.
    assert!((0..10_000).all(|n| outbox.send(ended(n))));
    for n in 0..10_000 {
        assert_eq!(peer.message().await, ended(n));
    }
}

#[tokio::test]
async fn peers_that_share_a_connection_have_sessions_of_their_own() {
    let mut server = Server::start().await;
    let placed = |id| {
        let mut hello = hello(id);
        hello.peer.addr.set_ip([10, 0, 0, id].into());
        hello
    };
    let trunk = Trunk::connect(server.addr).await.unwrap();
    let (says, mut hears) = trunk.open(placed(1)).await.unwrap();
    let (first, _, outbox) = server.connected().await;
    let (other_says, mut other_hears) = trunk.open(placed(2)).await.unwrap();
    let (_, other, other_outbox) = server.connected().await;
    assert_eq!(other, placed(2));

    assert!(outbox.send(ended(1)) && other_outbox.send(ended(2)));
    assert_eq!(hears.receive().await, Ok(vec![ended(1)]));
    assert_eq!(other_hears.receive().await, Ok(vec![ended(2)]));
    for queue in [&says, &other_says] {
        queue.send(pulse(7)).await.unwrap();
        assert_eq!(server.message().await, pulse(7));
    }
    // One that goes leaves the others where they are.
    drop((says, hears));
    assert_eq!(server.gone().await, first);
    assert!(other_outbox.send(ended(3)));
    assert_eq!(other_hears.receive().await, Ok(vec![ended(3)]));
    drop((other_says, other_hears));
    server.gone().await;
}
