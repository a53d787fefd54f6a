//! The members as peers of a running supernode, over TCP, as the control protocol has them: a session each, which its
//! hello names. A daemon has a connection of its own; here several sessions may share one, because a process may not
//! have a hundred thousand descriptors, and the supernode may not either.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pantala_core::control::{FromPeer, Serial};
use pantala_wire::control::{Trunk, TrunkSession};
use serde_json::json;
use tokio::{
    runtime,
    sync::{Mutex, Semaphore, mpsc},
    task::{JoinSet, block_in_place},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    measure::{Times, allowed, report},
    script::{Heard, Script},
};

/// Connections that are made at a time.
const DIALLING: usize = 64;
/// The pauses of a daemon that has lost its supernode (`ClientConfig` of the wire): each is shortened by up to half.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What is to be measured.
pub struct Load {
    pub script: Script,
    pub messages: u64,
    pub burst: u64,
    pub supernode: SocketAddr,
    /// Sessions of one connection.
    pub sessions: u32,
    /// Members that speak at a time.
    pub speakers: u32,
}

/// One member's session.
struct Member {
    number: u32,
    says: mpsc::Sender<FromPeer>,
    /// A permit for each answer that came. Closed when the session is over.
    answers: Arc<Semaphore>,
    serial: Serial,
    /// How often it has announced something.
    turns: u64,
}

/// A session is over.
struct Lost;

/// A connection, and the members whose sessions it carries.
struct Line {
    /// Kept for the sessions.
    _trunk: Trunk,
    members: Vec<Arc<Mutex<Member>>>,
}

/// What a member does in its turn.
#[derive(Clone, Copy)]
enum Work {
    /// It says which contents it has before anybody asks.
    Seed,
    /// It asks for all others, a burst at a time.
    Come,
    /// It announces a burst and asks.
    Announce,
}

/// What all members of a phase have done.
struct Counts {
    times: std::sync::Mutex<Times>,
    done: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            times: Times::new().into(),
            done: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    fn add(&self, done: u64, took: Duration) {
        self.done.fetch_add(done, Ordering::Relaxed);
        self.times.lock().expect("nobody panicked").add(took);
    }

    fn report(&self, phase: &str, wanted: u64, since: Instant) {
        report(
            phase,
            json!({
                "wanted": wanted, "done": self.done.load(Ordering::Relaxed), "seconds": since.elapsed().as_secs_f64(),
                "times": self.times.lock().expect("nobody panicked").report(), "lost": self.lost.load(Ordering::Relaxed),
            }),
        );
    }
}

/// Runs all phases, each when it is allowed to.
pub fn run(load: Load) {
    // One thread, so that the supernode has the other processors.
    let mut builder = runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    let runtime = runtime.expect("the system gives a runtime");
    runtime.block_on(phases(Arc::new(load)));
    runtime.shutdown_background();
}

async fn phases(load: Arc<Load>) {
    let Some(time) = next() else { return };
    let Some(lines) = open(&load, time).await else {
        return;
    };
    let (tasks, members) = (load.script.tasks(), load.script.members());
    let all: Vec<_> = lines.iter().flat_map(|line| line.members.clone()).collect();
    let all = Arc::new(all);

    let Some(time) = next() else { return };
    let until = Instant::now() + time;
    speak(
        &load,
        &all,
        Work::Seed,
        members.into(),
        until,
        &Counts::new(),
    )
    .await;
    let (since, counts) = (Instant::now(), Counts::new());
    speak(&load, &all, Work::Come, members.into(), until, &counts).await;
    counts.report("come", u64::from(tasks) * u64::from(members - 1), since);

    let Some(time) = next() else { return };
    let (since, counts) = (Instant::now(), Counts::new());
    let bursts = load.messages / (load.burst + 1);
    speak(&load, &all, Work::Announce, bursts, since + time, &counts).await;
    counts.report("announce", bursts * (load.burst + 1), since);

    let Some(time) = next() else { return };
    resume(&load, lines, time).await;
    // Until it is told to end, so that the supernode can be looked at.
    next();
}

/// Waits for the word on this thread: the sessions live on the other.
fn next() -> Option<Duration> {
    block_in_place(allowed)
}

/// Makes all connections and sessions. `None` when that did not succeed.
async fn open(load: &Arc<Load>, time: Duration) -> Option<Vec<Line>> {
    let began = Instant::now();
    let (members, sessions) = (load.script.members(), load.sessions.max(1));
    let firsts = (0..members).step_by(sessions as usize);
    let turn = Arc::new(Semaphore::new(DIALLING));
    let mut opening = JoinSet::new();
    for first in firsts {
        let (load, turn) = (load.clone(), turn.clone());
        opening.spawn(async move {
            let _turn = turn.acquire_owned().await;
            line(&load, first..members.min(first + sessions)).await
        });
    }
    let mut late = std::pin::pin!(sleep_until(began + time));
    let (mut lines, mut error) = (Vec::new(), None);
    loop {
        let opened = tokio::select! {
            opened = opening.join_next() => opened,
            () = &mut late => {
                error = Some("not all connected in time".to_owned());
                break;
            }
        };
        match opened {
            Some(Ok(Ok(line))) => lines.push(line),
            Some(Ok(Err(reason))) => error = Some(reason),
            Some(Err(failed)) => error = Some(failed.to_string()),
            None => break,
        }
    }
    let done: usize = lines.iter().map(|line| line.members.len()).sum();
    report(
        "open",
        json!({
            "wanted": members, "done": done, "seconds": began.elapsed().as_secs_f64(), "error": error,
            "connections": lines.len(),
        }),
    );
    error.is_none().then_some(lines)
}

/// One connection with the sessions of these members.
async fn line(load: &Arc<Load>, members: Range<u32>) -> Result<Line, String> {
    let trunk = Trunk::connect(load.supernode).await?;
    let mut line = Vec::new();
    for number in members {
        let (says, hears) = trunk.open(load.script.hello(number)).await?;
        let answers = Arc::new(Semaphore::new(0));
        tokio::spawn(hear(load.clone(), hears, says.clone(), answers.clone()));
        line.push(Arc::new(Mutex::new(Member {
            number,
            says,
            answers,
            serial: Serial::NONE,
            turns: 0,
        })));
    }
    Ok(Line {
        _trunk: trunk,
        members: line,
    })
}

/// Takes what a member is told, until its session is over.
async fn hear(
    load: Arc<Load>,
    mut hears: TrunkSession,
    says: mpsc::Sender<FromPeer>,
    answers: Arc<Semaphore>,
) {
    while let Ok(messages) = hears.receive().await {
        let mut came = 0;
        for message in messages {
            match load.script.hears(&message) {
                Heard::Answer => came += 1,
                Heard::Learn(message) => {
                    came += 1;
                    let _ = says.send(*message).await;
                }
                Heard::News => {}
            }
        }
        answers.add_permits(came);
    }
    answers.close();
}

/// Has `load.speakers` at a time of the members, one after the other and over and over, do some work, `turns` times
/// in all, or until the time is over.
async fn speak(
    load: &Arc<Load>,
    members: &Arc<Vec<Arc<Mutex<Member>>>>,
    work: Work,
    turns: u64,
    until: Instant,
    counts: &Arc<Counts>,
) {
    let next = Arc::new(AtomicU64::new(0));
    let mut speaking = JoinSet::new();
    for _ in 0..load.speakers {
        let (load, members, counts) = (load.clone(), members.clone(), counts.clone());
        let next = next.clone();
        speaking.spawn(async move {
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= turns {
                    break;
                }
                let member = &members[(turn % members.len() as u64) as usize];
                let done = member.lock().await.work(&load, work, &counts).await;
                if done.is_err() {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    // Those that are not done go with the set.
    tokio::select! {
        () = async { while speaking.join_next().await.is_some() {} } => {}
        () = sleep_until(until) => {}
    }
}

impl Member {
    async fn work(&mut self, load: &Load, work: Work, counts: &Counts) -> Result<(), Lost> {
        let script = &load.script;
        let seeds = |task: &u32| script.seed_of(*task) == self.number;
        match work {
            Work::Seed => {
                let tasks: Vec<u32> = (0..script.tasks()).filter(seeds).collect();
                self.resume(script, &tasks).await
            }
            Work::Come => {
                let tasks = (0..script.tasks()).filter(|task| !seeds(task));
                let tasks: Vec<u32> = tasks.collect();
                for tasks in tasks.chunks(load.burst as usize) {
                    let began = Instant::now();
                    self.register(script, tasks).await?;
                    counts.add(tasks.len() as u64, began.elapsed());
                }
                Ok(())
            }
            Work::Announce => {
                let began = Instant::now();
                self.announce(script, load.burst).await?;
                counts.add(load.burst + 1, began.elapsed());
                Ok(())
            }
        }
    }

    async fn say(&self, message: FromPeer) -> Result<(), Lost> {
        self.says.send(message).await.map_err(|_| Lost)
    }

    async fn answered(&self, count: u32) -> Result<(), Lost> {
        let answers = self.answers.acquire_many(count).await;
        answers.map_err(|_| Lost)?.forget();
        Ok(())
    }

    async fn register(&mut self, script: &Script, tasks: &[u32]) -> Result<(), Lost> {
        for &task in tasks {
            self.serial = self.serial.next();
            self.say(script.register(task, self.serial)).await?;
        }
        self.answered(tasks.len() as u32).await
    }

    async fn announce(&mut self, script: &Script, burst: u64) -> Result<(), Lost> {
        for _ in 0..burst {
            self.say(script.have(self.turns)).await?;
            self.turns += 1;
        }
        self.serial = self.serial.next();
        self.say(script.question(self.serial)).await?;
        self.answered(1).await
    }

    async fn resume(&self, script: &Script, tasks: &[u32]) -> Result<(), Lost> {
        for &task in tasks {
            let end = script.held(self.number, task, self.turns);
            self.say(script.resume(task, end)).await?;
        }
        self.answered(tasks.len() as u32).await
    }
}

/// The supernode is killed, and another one is at its address: all members come back as daemons do.
async fn resume(load: &Arc<Load>, lines: Vec<Line>, time: Duration) {
    let (since, counts) = (Instant::now(), Counts::new());
    let wanted = u64::from(load.script.tasks()) * u64::from(load.script.members());
    let mut returning = JoinSet::new();
    for line in lines {
        returning.spawn(come_back(load.clone(), line, since, counts.clone()));
    }
    let mut back = Vec::new();
    tokio::select! {
        () = async {
            while let Some(line) = returning.join_next().await {
                back.push(line);
            }
        } => {}
        () = sleep_until(since + time) => {}
    }
    counts.report("resume", wanted, since);
}

/// Waits until a connection has gone, makes another one and says all that its members have, over and over until it is
/// heard.
async fn come_back(load: Arc<Load>, old: Line, since: Instant, counts: Arc<Counts>) -> Line {
    let mut turns = Vec::new();
    for member in &old.members {
        let member = member.lock().await;
        // So many answers do not come: this ends with the session.
        let _ = member.answered(u32::MAX).await;
        turns.push((member.number, member.turns));
    }
    drop(old);
    let first = turns.first().map_or(0, |&(number, _)| number);
    let mut pause = BACKOFF;
    loop {
        sleep(shortened(pause, first)).await;
        pause = (pause * 2).min(BACKOFF_MAX);
        let Ok(line) = line(&load, first..first + turns.len() as u32).await else {
            continue;
        };
        let mut resuming = JoinSet::new();
        for (member, &(_, turns)) in line.members.iter().zip(&turns) {
            let (load, counts, member) = (load.clone(), counts.clone(), member.clone());
            resuming.spawn(async move {
                let mut member = member.lock().await;
                member.turns = turns;
                let tasks: Vec<u32> = (0..load.script.tasks()).collect();
                member.resume(&load.script, &tasks).await?;
                counts.add(tasks.len() as u64, since.elapsed());
                Ok::<_, Lost>(())
            });
        }
        let heard = resuming.join_all().await;
        if heard.iter().all(Result::is_ok) {
            return line;
        }
        counts.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// A pause less up to half of it, another part for each connection.
fn shortened(pause: Duration, connection: u32) -> Duration {
    let share = f64::from(connection.wrapping_mul(2_654_435_761) >> 16) / f64::from(1 << 16);
    pause.mul_f64(0.5 + share / 2.0)
}
