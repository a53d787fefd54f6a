//! What this node does now: what streams, each with its windows, and what memory holds.

use pantala_node::{Node, StreamView};
use serde::Serialize;

/// All of it, as JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    pub memory: Memory,
    pub moved: Moved,
    pub streams: Vec<Stream>,
    pub cache: Vec<Cached>,
}

/// The memory budget, in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Taken by pieces, those on their way and those of slow sockets included.
    pub used: u64,
    pub limit: u64,
    /// Pieces that have left for want of room since the start.
    pub evicted_pieces: u64,
}

/// Content bytes since the start.
#[derive(Debug, Serialize)]
pub(crate) struct Moved {
    pub from_origins: u64,
    pub from_peers: u64,
    pub to_peers: u64,
    pub to_readers: u64,
}

/// A content that is being read or fetched.
#[derive(Debug, Serialize)]
pub(crate) struct Stream {
    pub task: String,
    pub url: String,
    pub length: Option<u64>,
    pub piece_size: u64,
    pub pieces_held: usize,
    pub pieces_in_flight: usize,
    pub parents: usize,
    pub leased: bool,
    pub windows: Vec<Window>,
}

/// One reader's window.
#[derive(Debug, Serialize)]
pub(crate) struct Window {
    /// The piece its reader is at.
    pub base: u32,
    /// How many pieces it spans.
    pub size: u32,
    /// How many of those are here.
    pub held: u32,
}

/// A content of which memory holds something.
#[derive(Debug, Serialize)]
pub(crate) struct Cached {
    pub task: String,
    pub url: String,
    pub length: Option<u64>,
    pub pieces_held: usize,
    /// Of the whole content; `None` while its length is not known.
    pub pieces: Option<u64>,
    pub bytes_held: u64,
}

impl Stream {
    /// How far the slowest and the fastest reader are, in hundredths, when that is known.
    pub fn position(&self, window: &Window) -> Option<u64> {
        let length = self.length.filter(|length| *length > 0)?;
        let at = u64::from(window.base)
            .saturating_mul(self.piece_size)
            .min(length);
        Some(at.saturating_mul(100) / length)
    }
}

impl Overview {
    /// As it is now.
    pub async fn of(node: &Node) -> Self {
        let (stats, totals) = (node.memory(), node.totals());
        let mut views = node.streams().await;
        // Lines stay where they are from one look to the next.
        views.sort_by(|a, b| (&a.url, a.task.as_bytes()).cmp(&(&b.url, b.task.as_bytes())));
        let cache = views
            .iter()
            .filter(|view| view.held > 0)
            .map(cached)
            .collect();
        let streams = views.into_iter().filter(is_streaming).map(Stream::from);
        Self {
            memory: Memory {
                used: stats.used,
                limit: stats.limit,
                evicted_pieces: stats.evicted,
            },
            moved: Moved {
                from_origins: totals.origin_received,
                from_peers: totals.peer_received,
                to_peers: totals.peer_sent,
                to_readers: totals.reader_sent,
            },
            streams: streams.collect(),
            cache,
        }
    }
}

fn is_streaming(view: &StreamView) -> bool {
    !view.state.windows.is_empty() || view.state.in_flight > 0
}

fn cached(view: &StreamView) -> Cached {
    let most = (view.held as u64).saturating_mul(view.piece_size);
    Cached {
        task: view.task.to_string(),
        url: view.url.clone(),
        length: view.length,
        pieces_held: view.held,
        pieces: view.length.map(|length| length.div_ceil(view.piece_size)),
        bytes_held: view.length.map_or(most, |length| most.min(length)),
    }
}

impl From<StreamView> for Stream {
    fn from(view: StreamView) -> Self {
        let windows = view.state.windows.into_iter();
        Self {
            task: view.task.to_string(),
            url: view.url,
            length: view.length,
            piece_size: view.piece_size,
            pieces_held: view.held,
            pieces_in_flight: view.state.in_flight,
            parents: view.state.parents,
            leased: view.state.leased,
            windows: windows
                .map(|(_, base, size, held)| Window {
                    base: base.get(),
                    size,
                    held,
                })
                .collect(),
        }
    }
}
