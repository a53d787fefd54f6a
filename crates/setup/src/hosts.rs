//! `hosts.toml`: where containerd goes for a registry, in the order of its `[host]` tables.

use std::path::Path;

use pantala_core::Result;
use toml_edit::{Item, TableLike};

use crate::{
    block::{self, Block},
    refuse,
    toml::{by_hand, line_of, line_start, parse},
};

/// `text` with the mirror first. `made` is how many directories a new file brings into being.
///
/// A new file names no `server`: without one containerd falls back to the registry as if there
/// were no file, also where a registry's name is not its server's.
pub(crate) fn put_in(path: &Path, text: Option<&str>, url: &str, made: usize) -> Result<String> {
    let mut block = Block {
        body: format!("[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"),
        ..Block::default()
    };
    let Some(text) = text else {
        block.made = Some(made);
        return Ok(block::insert("", 0, &block));
    };
    if first_is(path, text, url, &block)? {
        return Ok(text.to_owned());
    }
    let mut text = text.to_owned();
    // For another address, from before.
    while let Some(found) = block::find(path, &text)?.first() {
        block.made = block.made.or(found.block.made);
        text = block::remove(&text, found);
    }
    let hosts = hosts(path, &text, &block)?;
    if let Some((at, _)) = hosts.iter().find(|(_, name)| name == url) {
        return Err(refuse(
            path,
            Some(line_of(&text, *at)),
            format!("{url} is there, but not first, and the order counts"),
            "move this table before the other hosts, or take it out",
        ));
    }
    let at = hosts
        .first()
        .map_or(text.len(), |(at, _)| above(&text, *at));
    let after = block::insert(&text, at, &block);
    match first_is(path, &after, url, &block) {
        Ok(true) => Ok(after),
        _ => Err(by_hand(path, &block)),
    }
}

/// `text` without what setup put in; with that, how many directories were made for it. `None`
/// when nothing of ours is there.
pub(crate) fn take_out(path: &Path, text: &str) -> Result<Option<(Option<String>, usize)>> {
    let mut made = None;
    let mut rest = text.to_owned();
    let mut any = false;
    while let Some(found) = block::find(path, &rest)?.first() {
        any = true;
        made = made.or(found.block.made);
        rest = block::remove(&rest, found);
    }
    Ok(any.then(|| match made {
        Some(directories) if rest.trim().is_empty() => (None, directories),
        _ => (Some(rest), 0),
    }))
}

fn first_is(path: &Path, text: &str, url: &str, block: &Block) -> Result<bool> {
    let hosts = hosts(path, text, block)?;
    Ok(hosts.first().is_some_and(|(_, name)| name == url))
}

/// The hosts in containerd's order, that of their tables, with where each begins.
fn hosts(path: &Path, text: &str, block: &Block) -> Result<Vec<(usize, String)>> {
    let document = parse(path, text)?;
    let Some(item) = document.get("host") else {
        return Ok(Vec::new());
    };
    let table = match item.as_table() {
        Some(table) if !table.is_dotted() => table,
        _ => return Err(by_hand(path, block)),
    };
    let mut hosts = Vec::new();
    for (name, item) in table.iter() {
        let Some(at) = start(item) else {
            return Err(by_hand(path, block));
        };
        hosts.push((at, name.to_owned()));
    }
    hosts.sort();
    Ok(hosts)
}

/// Where the first header of a table or of what is in it stands.
fn start(item: &Item) -> Option<usize> {
    let table = item.as_table().filter(|table| !table.is_dotted())?;
    match table.is_implicit() {
        false => table.span().map(|span| span.start),
        true => TableLike::iter(table)
            .filter_map(|(_, item)| start(item))
            .min(),
    }
}

/// The start of the line at `at`, or of the comments right above it, which belong to it.
fn above(text: &str, at: usize) -> usize {
    let mut start = line_start(text, at);
    while start > 0 {
        let previous = line_start(text, start - 1);
        if !text[previous..start].trim_start().starts_with('#') {
            break;
        }
        start = previous;
    }
    start
}
