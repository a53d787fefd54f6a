//! The brain alone, in this thread: what a message costs it, one after the other, each with a time of its own as from
//! a supernode that keeps up with them. A cost is the time from handing a message in until all that the brain says to
//! it is taken; making the messages is not in it.

use std::{
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pantala_core::{
    Time,
    control::{FromPeer, Serial, ToPeer},
};
use pantala_swarm::{Config, Event, Swarm};
use serde_json::json;

use crate::{
    measure::{Times, allowed, report},
    script::{Heard, Script},
};

/// The brain, its clock, and how often it has spoken.
struct Brain<'a> {
    script: &'a Script,
    swarm: Swarm,
    started: Instant,
    /// While the clock stands still: when it was stopped, and what it shows.
    stopped: Option<(Instant, Time)>,
    /// What the clock is behind, because it stood still.
    behind: Duration,
    said: u64,
    answers: u64,
}

impl<'a> Brain<'a> {
    fn new(script: &'a Script) -> Self {
        Self {
            script,
            swarm: Swarm::new(Config::default()),
            started: Instant::now(),
            stopped: None,
            behind: Duration::ZERO,
            said: 0,
            answers: 0,
        }
    }

    fn time(&self, now: Instant) -> Time {
        match self.stopped {
            Some((_, time)) => time,
            None => Time::ZERO + (now - self.started).saturating_sub(self.behind),
        }
    }

    /// Nothing becomes due from here on.
    fn stop_clock(&mut self) {
        let now = Instant::now();
        self.stopped = Some((now, self.time(now)));
    }

    fn start_clock(&mut self) {
        if let Some((since, _)) = self.stopped.take() {
            self.behind += since.elapsed();
        }
    }

    /// Hands one event in and takes all outputs; what that took.
    fn tell(&mut self, event: Event) -> Duration {
        let began = Instant::now();
        self.swarm.handle(self.time(began), event);
        let mut reactions = Vec::new();
        while let Some(output) = self.swarm.poll_output() {
            self.said += 1;
            match self.script.hears(&output.message) {
                Heard::Answer => self.answers += 1,
                Heard::Learn(message) => {
                    self.answers += 1;
                    reactions.push((output.to, message));
                }
                Heard::News => drop::<ToPeer>(output.message),
            }
        }
        let took = began.elapsed();
        for (peer, message) in reactions {
            self.tell(Event::Message {
                peer,
                message: *message,
            });
        }
        took
    }

    fn say(&mut self, member: u32, message: FromPeer) -> Duration {
        let peer = self.script.peer(member);
        self.tell(Event::Message { peer, message })
    }

    fn connect_all(&mut self) {
        for member in 0..self.script.members() {
            let hello = self.script.hello(member);
            self.tell(Event::Connected { hello });
        }
    }
}

/// How much longer than its phase one message may take.
const STUCK: Duration = Duration::from_secs(5);

/// What was done of a phase, until it was over or its time was.
struct Tally {
    began: Instant,
    allowed: Duration,
    wanted: u64,
    done: Arc<AtomicU64>,
    spent: Duration,
    times: Times,
    over: Arc<AtomicBool>,
}

impl Tally {
    fn new(phase: &'static str, allowed: Duration, wanted: u64) -> Self {
        let tally = Self {
            began: Instant::now(),
            allowed,
            wanted,
            done: Arc::default(),
            spent: Duration::ZERO,
            times: Times::new(),
            over: Arc::default(),
        };
        let (done, over) = (tally.done.clone(), tally.over.clone());
        thread::spawn(move || watch(phase, allowed, wanted, &done, &over));
        tally
    }

    fn add(&mut self, took: Duration) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.spent += took;
        self.times.add(took);
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Whether its time is over. It must be asked again within a few messages.
    fn is_over(&self) -> bool {
        let over = self.began.elapsed() > self.allowed;
        if over {
            self.over.store(true, Ordering::Relaxed);
        }
        over
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Ends the program when the brain is so long about some messages that the phase cannot say that its time is over.
fn watch(phase: &str, allowed: Duration, wanted: u64, done: &AtomicU64, over: &AtomicBool) {
    let began = Instant::now();
    // Long waits in short ones: a watch of a phase that is over goes.
    while began.elapsed() < allowed + STUCK {
        thread::sleep(Duration::from_millis(100));
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
    report(
        phase,
        json!({
            "wanted": wanted, "done": done.load(Ordering::Relaxed), "seconds": began.elapsed().as_secs_f64(),
            "stuck": true,
        }),
    );
    exit(0);
}

/// Runs all phases, each when it is allowed to.
pub fn run(script: &Script, messages: u64, burst: u64) {
    if allowed().is_none() {
        return;
    }
    let mut brain = Brain::new(script);
    brain.connect_all();
    report("open", json!({"done": script.members()}));
    let Some(time) = allowed() else { return };
    come(&mut brain, time);
    let Some(time) = allowed() else { return };
    brain.stop_clock();
    let turns = announce(&mut brain, "still", (messages, burst), 0, time);
    brain.start_clock();
    let Some(time) = allowed() else { return };
    let turns = announce(&mut brain, "announce", (messages, burst), turns, time);
    let Some(time) = allowed() else { return };
    drop(brain);
    resume(script, turns, time);
}

/// Each content's seed says what it has; then all others ask for it.
fn come(brain: &mut Brain<'_>, time: Duration) {
    let script = brain.script;
    for task in 0..script.tasks() {
        brain.say(
            script.seed_of(task),
            script.resume(task, crate::script::PIECES),
        );
    }
    let each = u64::from(script.members()) - 1;
    let wanted = each * u64::from(script.tasks());
    let mut tally = Tally::new("come", time, wanted);
    let (mut last, mut last_count) = (Duration::ZERO, 0);
    let answers = brain.answers;
    let mut serial = Serial::NONE;
    let mut rest = 0;
    for task in 0..script.tasks() {
        for member in (0..script.members()).filter(|&member| member != script.seed_of(task)) {
            serial = serial.next();
            let message = script.register(task, serial);
            // Once the phase is over the rest come with the clock standing still, so that the next phases have them.
            if rest > 0 || tally.is_over() {
                if rest == 0 {
                    brain.stop_clock();
                }
                rest += 1;
                brain.say(member, message);
                continue;
            }
            let took = brain.say(member, message);
            tally.add(took);
            if tally.done() > wanted - wanted / 100 {
                last += took;
                last_count += 1;
            }
        }
    }
    brain.start_clock();
    let last = (last_count > 0).then(|| last.as_secs_f64() * 1e6 / f64::from(last_count));
    report(
        "come",
        json!({
            "wanted": wanted, "done": tally.done(), "seconds": tally.spent.as_secs_f64(), "times": tally.times.report(),
            "last_us": last, "unanswered": wanted - (brain.answers - answers).min(wanted),
        }),
    );
}

/// All members announce by turns, and ask after each burst; how many turns each of them had, those before included.
fn announce(
    brain: &mut Brain<'_>,
    phase: &'static str,
    (messages, burst): (u64, u64),
    before: u64,
    time: Duration,
) -> u64 {
    let script = brain.script;
    let mut tally = Tally::new(phase, time, messages);
    let (mut announces, mut answers) = (Times::new(), Times::new());
    let mut serial = Serial::new(u64::MAX / 2);
    let mut turns = before;
    let said = brain.said;
    'all: loop {
        for member in 0..script.members() {
            let burst: Vec<FromPeer> = (turns..turns + burst)
                .map(|turn| script.have(turn))
                .collect();
            for message in burst {
                let took = brain.say(member, message);
                announces.add(took);
                tally.add(took);
            }
            serial = serial.next();
            let took = brain.say(member, script.question(serial));
            answers.add(took);
            tally.add(took);
            if tally.done() >= messages || tally.is_over() {
                break 'all;
            }
        }
        turns += burst;
    }
    report(
        phase,
        json!({
            "wanted": tally.wanted, "done": tally.done().min(messages), "seconds": tally.spent.as_secs_f64(),
            "times": answers.report(), "announces": announces.report(), "said": brain.said - said,
        }),
    );
    turns
}

/// Another brain, which knows nothing, is told by all what they have.
fn resume(script: &Script, turns: u64, time: Duration) {
    let mut brain = Brain::new(script);
    brain.connect_all();
    let wanted = u64::from(script.members()) * u64::from(script.tasks());
    let mut tally = Tally::new("resume", time, wanted);
    'all: for task in 0..script.tasks() {
        for member in 0..script.members() {
            if tally.is_over() {
                break 'all;
            }
            let message = script.resume(task, script.held(member, task, turns));
            tally.add(brain.say(member, message));
        }
    }
    report(
        "resume",
        json!({
            "wanted": wanted, "done": tally.done(), "seconds": tally.spent.as_secs_f64(), "times": tally.times.report(),
        }),
    );
}
