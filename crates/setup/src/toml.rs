//! TOML that is read for its meaning and for where things stand.

use std::path::Path;

use pantala_core::Result;
use toml_edit::{Document, Item, TableLike};

use crate::{block::Block, refuse};

/// Parses `text`, the content of `path`.
pub(crate) fn parse<'t>(path: &Path, text: &'t str) -> Result<Document<&'t str>> {
    Document::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let what = format!("not TOML, {}", error.message().replace('\n', ", "));
        refuse(path, Some(line_of(text, at)), what, "correct it first")
    })
}

/// The number of the line that holds the byte at `at`.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// Where the line that holds the byte at `at` starts.
pub(crate) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |before| before + 1)
}

/// The item at the end of a path of keys, however it is written.
pub(crate) fn item<'d>(table: &'d dyn TableLike, keys: &[&str]) -> Option<&'d Item> {
    let (first, rest) = keys.split_first()?;
    let item = table.get(first)?;
    match rest.is_empty() {
        true => Some(item),
        false => self::item(item.as_table_like()?, rest),
    }
}

/// Whether nothing but comments and white space is in `text`.
pub(crate) fn is_blank(text: &str) -> bool {
    let bare = |line: &str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    text.lines().all(bare)
}

/// The error for a text in which the block has no place; says what to write.
pub(crate) fn by_hand(path: &Path, block: &Block) -> pantala_core::Error {
    let lines: Vec<&str> = block.body.lines().map(str::trim).collect();
    refuse(
        path,
        None,
        "written in a way that setup does not edit",
        format!("put this in by hand: {}", lines.join(" ")),
    )
}
