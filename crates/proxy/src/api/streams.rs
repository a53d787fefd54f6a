//! What streams now, for people and for programs.

use std::fmt::Write as _;

use pantala_core::format_size;
use pantala_node::{Node, StreamView};
use serde::Serialize;

/// One task of this node.
#[derive(Debug, Serialize)]
pub(crate) struct Stream {
    task: String,
    url: String,
    length: Option<u64>,
    piece_size: u64,
    pieces_held: usize,
    pieces_in_flight: usize,
    parents: usize,
    leased: bool,
    windows: Vec<Window>,
}

/// One reader's window.
#[derive(Debug, Serialize)]
struct Window {
    /// The piece its reader is at.
    base: u32,
    /// How many pieces it spans.
    size: u32,
    /// How many of those are here.
    held: u32,
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

pub(crate) async fn now(node: &Node) -> Vec<Stream> {
    node.streams().await.into_iter().map(Stream::from).collect()
}

/// As a table of one line per task.
pub(crate) fn table(streams: &[Stream]) -> String {
    let mut table = String::from("TASK      LENGTH    HELD  COMING  PARENTS  READERS  URL\n");
    for stream in streams {
        let task: String = stream.task.chars().take(8).collect();
        let length = stream.length.map_or("?".to_owned(), format_size);
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "{task:<8}  {length:<8}  {:>4}  {:>6}  {:>7}  {:>7}  {}",
            stream.pieces_held,
            stream.pieces_in_flight,
            stream.parents,
            stream.windows.len(),
            stream.url,
        );
    }
    table
}
