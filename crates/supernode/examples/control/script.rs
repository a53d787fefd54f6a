//! What the members of a shape say, in the same words and the same order whoever carries it: to the brain in this
//! process, or to a supernode over sockets. Nothing here sends anything or knows a time.

use std::time::Duration;

use pantala_core::{
    Class, ContentMeta, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId, Validators,
    control::{
        FromPeer, Hello, KnownResource, Learned, PeerAddr, Register, Resume, Serial, ToPeer,
    },
};

/// Pieces of each content: as many as one message may speak of, so that the member that has all says so at once.
pub const PIECES: u32 = 4096;
/// Bytes of a piece of such a content.
const PIECE: u64 = 4 << 20;
/// The content stays fresh for longer than any measurement takes.
const FRESH: Duration = Duration::from_secs(86_400);

/// So many contents, and so many peers that are members of each of them.
pub struct Script {
    tasks: Vec<(ResourceKey, TaskId)>,
    members: Vec<PeerId>,
    /// The resource that is nobody's to share: asking for it costs the brain little, and the answer says that all
    /// that was said before has been heard.
    question: ResourceKey,
}

impl Script {
    /// The script of `tasks` contents with `members` members each.
    pub fn new(tasks: u32, members: u32) -> Self {
        Self {
            tasks: (0..tasks)
                .map(|n| {
                    let key = key(&n.to_string());
                    let validators = meta().validators;
                    (key, TaskId::of_content(&key, &validators, None, 0))
                })
                .collect(),
            members: (0..members).map(peer).collect(),
            question: key("question"),
        }
    }

    /// How many contents there are.
    pub fn tasks(&self) -> u32 {
        self.tasks.len() as u32
    }

    /// How many members each content has.
    pub fn members(&self) -> u32 {
        self.members.len() as u32
    }

    /// Who a member is.
    pub fn peer(&self, member: u32) -> PeerId {
        self.members[member as usize]
    }

    /// What a member says first.
    pub fn hello(&self, member: u32) -> Hello {
        let peer = PeerAddr {
            id: self.peer(member),
            addr: ([10, 0, (member >> 8) as u8, member as u8], 65002).into(),
        };
        Hello {
            peer,
            labels: Vec::new(),
        }
    }

    /// The member that has all of a content before anybody asks for it.
    pub fn seed_of(&self, task: u32) -> u32 {
        task % self.members()
    }

    /// A member tells a supernode that does not know it what it has: pieces up to `end`.
    pub fn resume(&self, task: u32, end: u32) -> FromPeer {
        let (key, task) = self.tasks[task as usize];
        FromPeer::Resume(Resume {
            key,
            task,
            meta: meta(),
            resources: vec![KnownResource { key, meta: meta() }],
            held: Vec::from_iter((end > 0).then_some((PieceIndex::new(0), end))),
            digests: Vec::new(),
            position: PieceIndex::new(end),
            leases: Vec::new(),
            shown: String::new(),
        })
    }

    /// A reader asks for a content from its beginning. Answered by [`ToPeer::Known`].
    pub fn register(&self, task: u32, serial: Serial) -> FromPeer {
        ask(self.tasks[task as usize].0, serial)
    }

    /// The `turn`th announcement of a member: it says of one content after the other that it got the next piece.
    pub fn have(&self, turn: u64) -> FromPeer {
        let tasks = u64::from(self.tasks());
        let (_, task) = self.tasks[(turn % tasks) as usize];
        let piece = PieceIndex::new((turn / tasks) as u32 % PIECES);
        FromPeer::Have {
            task,
            gained: vec![(piece, 1)],
            lost: Vec::new(),
            position: piece,
            in_flight: 0,
            reader_bound: false,
        }
    }

    /// Pieces of a content that a member has said to have in so many turns.
    pub fn held(&self, member: u32, task: u32, turns: u64) -> u32 {
        if self.seed_of(task) == member {
            return PIECES;
        }
        let tasks = u64::from(self.tasks());
        let said = turns / tasks + u64::from(u64::from(task) < turns % tasks);
        said.min(PIECES.into()) as u32
    }

    /// A question whose answer costs next to nothing.
    pub fn question(&self, serial: Serial) -> FromPeer {
        ask(self.question, serial)
    }

    /// What a message of the supernode is to the script, and what the member says to it.
    pub fn hears(&self, message: &ToPeer) -> Heard {
        match message {
            ToPeer::Known { .. } | ToPeer::Direct { .. } => Heard::Answer,
            // Nobody has asked yet, or not for long: whoever does finds that it is not to be shared.
            ToPeer::Learn { key, serial, .. } if *key == self.question => {
                let learned = FromPeer::Learned {
                    key: *key,
                    serial: *serial,
                    learned: Learned::Unshareable,
                };
                Heard::Learn(learned.into())
            }
            _ => Heard::News,
        }
    }
}

/// What a message of the supernode is to the script.
pub enum Heard {
    /// What the member waits for.
    Answer,
    /// That as well, and the member has to say this.
    Learn(Box<FromPeer>),
    /// What a daemon would act on.
    News,
}

fn ask(key: ResourceKey, serial: Serial) -> FromPeer {
    FromPeer::Register(Register {
        key,
        serial,
        shown: String::new(),
        start: 0,
        content: None,
    })
}

fn key(name: &str) -> ResourceKey {
    let url = format!("http://origin.example/{name}");
    ResourceKey::of_url(&url, b"", Class::Anonymous)
}

fn peer(member: u32) -> PeerId {
    let digest = PieceDigest::of(&member.to_be_bytes());
    PeerId::try_from(&digest.as_bytes()[..16]).expect("16 bytes")
}

/// The answer of an ordinary web server.
fn meta() -> ContentMeta {
    let headers = [
        ("server", "nginx"),
        ("last-modified", "Sun, 01 Nov 2026 10:00:00 GMT"),
        ("cache-control", "max-age=86400"),
        ("accept-ranges", "bytes"),
    ];
    ContentMeta {
        length: Some(u64::from(PIECES) * PIECE),
        validators: Validators {
            etag: Some("\"6541f0a0-400000000\"".to_owned()),
            ..Validators::default()
        },
        ranges: true,
        content_type: Some("application/octet-stream".to_owned()),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        fresh_for: Some(FRESH),
        ..ContentMeta::default()
    }
}
