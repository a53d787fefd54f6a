//! How many announces a supernode takes per second of CPU, over the wire:
//! `cargo run --release -p pantala-supernode --example announce [PEERS [BURST [SECONDS]]]`.
//!
//! Each peer says what it gained in bursts and waits after each until the supernode answers a
//! question, so that its queue never overflows. A burst of 1 is the worst case: every message is
//! a frame of its own.
//!
//! Measured on one core of two, optimised, with 32 peers, per second of the supernode's CPU:
//! bursts of 1: 56,000 announces and as many questions and answers; of 8: 330,000; of 64: 880,000;
//! of 512: 1,130,000. 120 peers with bursts of 1: 51,000.

use std::{fs, time::Duration};

use pantala_core::{
    ContentMeta, PeerId, PieceIndex, ResourceKey, TaskId,
    control::{FromPeer, Hello, Learned, PeerAddr, Register, Serial, ToPeer},
};
use pantala_supernode::{Supernode, SupernodeConfig};
use pantala_wire::control::{ClientConfig, Control, ControlEvent};
use tokio::{runtime, sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

fn main() {
    let mut args = std::env::args().skip(1);
    let mut arg = |default: u64| args.next().map_or(default, |arg| arg.parse().unwrap());
    let (peers, burst, seconds) = (arg(32), arg(64), arg(5));
    let runtime = |name| {
        let mut builder = runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name(name).enable_all();
        builder.build().unwrap()
    };
    let (server, clients) = (runtime("supernode"), runtime("peers"));
    let cancel = CancellationToken::new();
    let listen = "127.0.0.1:0".parse().unwrap();
    let swarm = pantala_swarm::Config {
        lease_timeout: Duration::from_secs(600),
        stall_timeout: Duration::from_secs(600),
        ..Default::default()
    };
    let config = SupernodeConfig { listen, swarm };
    let supernode = server.block_on(async { Supernode::start(config, cancel.clone()).await });
    let supernode = supernode.unwrap();
    let place = supernode.local_addr();

    let (begun, cpu) = (Instant::now(), cpu_seconds("supernode"));
    let until = begun + Duration::from_secs(seconds);
    let announced: u64 = clients.block_on(async {
        let peers =
            (0..peers).map(|id| clients.spawn(announce(id, burst, place.to_string(), until)));
        let peers: JoinSet<_> = peers.map(|peer| async { peer.await.unwrap() }).collect();
        peers.join_all().await.into_iter().sum()
    });
    let (took, cpu) = (begun.elapsed(), cpu_seconds("supernode") - cpu);
    let rate = announced as f64 / took.as_secs_f64();
    println!(
        "{peers} peers, bursts of {burst}: {rate:.0} announces/s, {:.0} per second of the supernode's CPU",
        announced as f64 / cpu
    );
    cancel.cancel();
    server.block_on(supernode.stopped()).unwrap();
}

async fn announce(id: u64, burst: u64, supernode: String, until: Instant) -> u64 {
    let peer = PeerAddr {
        id: PeerId::from_bytes([id as u8; 16]),
        addr: "10.0.0.1:65002".parse().unwrap(),
    };
    let hello = Hello {
        peer,
        labels: Vec::new(),
    };
    let cancel = CancellationToken::new();
    let config = ClientConfig::new(vec![supernode], hello);
    let (control, mut events) = Control::start(config, cancel.clone());
    loop {
        match events.recv().await {
            Some(ControlEvent::Dialled) => {}
            Some(ControlEvent::Up { .. }) => break,
            other => panic!("not up but {other:?}"),
        }
    }
    let (shared, own) = (key(2 * id as u8), key(2 * id as u8 + 1));
    let task = TaskId::from_bytes([id as u8; 32]);
    let meta = ContentMeta {
        length: Some(1 << 40),
        ..Default::default()
    };
    for (key, learned) in [
        (shared, Learned::Content { task, meta }),
        (own, Learned::Unshareable),
    ] {
        assert!(control.send(register(key)));
        answer(&mut events, key).await;
        assert!(control.send(FromPeer::Learned {
            key,
            serial: Serial::new(1),
            learned
        }));
    }
    let mut announced = 0;
    while Instant::now() < until {
        for _ in 0..burst {
            announced += 1;
            let piece = PieceIndex::new((announced % 200_000) as u32);
            assert!(control.send(FromPeer::Have {
                task,
                gained: vec![(piece, 1)],
                lost: Vec::new(),
                position: piece,
                in_flight: 0,
                reader_bound: false,
            }));
        }
        assert!(control.send(register(own)));
        answer(&mut events, own).await;
    }
    cancel.cancel();
    control.stopped().await;
    announced
}

fn key(id: u8) -> ResourceKey {
    ResourceKey::from_bytes([id; 32])
}

fn register(key: ResourceKey) -> FromPeer {
    FromPeer::Register(Register {
        key,
        serial: Serial::new(1),
        shown: String::new(),
        start: 0,
        content: None,
    })
}

/// Waits until the supernode has dealt with all that was said before.
async fn answer(events: &mut mpsc::Receiver<ControlEvent>, about: ResourceKey) {
    loop {
        match events.recv().await.unwrap() {
            ControlEvent::Message(ToPeer::Learn { key, .. } | ToPeer::Direct { key, .. })
                if key == about =>
            {
                return;
            }
            ControlEvent::Message(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What threads of this name have used, in user and kernel mode.
fn cpu_seconds(name: &str) -> f64 {
    let ticks: u64 = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok())
        .filter(|stat| stat.contains(&format!("({name})")))
        .filter_map(|stat| {
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
            let (user, system) = (fields.next()?, fields.next()?);
            Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
        })
        .sum();
    // USER_HZ is 100 on every Linux there is.
    ticks as f64 / 100.0
}
