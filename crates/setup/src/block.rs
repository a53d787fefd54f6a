//! What setup put into a TOML file, between two comments that say so.
//!
//! Invariant: removing a block from a text into which it was put gives back this very text,
//! whatever its line ends and whether or not its last line has one. So the opening comment keeps
//! what cannot be seen otherwise: the line that was replaced, and whether the file, and how many
//! directories above it, were made for it.

use std::{ops::Range, path::Path};

use pantala_core::Result;

use crate::{backup_path, refuse};

const BEGIN: &str = "# >>> dfdaemon setup";
const END: &str = "# <<< dfdaemon setup (--undo takes this out)";
const END_HEAD: &str = "# <<< dfdaemon setup";
const MADE: &str = " made this file and directories above it: ";
const FOR: &str = " for ";
const INSTEAD: &str = " instead of: ";

/// A block, to be put in or found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Block {
    /// What it is for where a file may hold several.
    pub(crate) name: Option<String>,
    /// The file was made for it, with so many directories.
    pub(crate) made: Option<usize>,
    /// The line whose place it took, without its end.
    pub(crate) instead: Option<String>,
    /// Its lines, without the comments around them, each ending in a line feed.
    pub(crate) body: String,
}

/// A block and where it stands: whole lines, the comments included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) span: Range<usize>,
    pub(crate) block: Block,
}

/// Every block in `text`.
///
/// # Errors
/// For one without its end.
pub(crate) fn find(path: &Path, text: &str) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, Block)> = None;
    let mut at = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let bare = line.trim_end_matches(['\n', '\r']);
        let end = at + line.len();
        match &mut open {
            Some((start, _, block)) if bare.trim_start().starts_with(END_HEAD) => {
                let (span, block) = (*start..end, std::mem::take(block));
                found.push(Found { span, block });
                open = None;
            }
            Some((_, line, _)) if bare.starts_with(BEGIN) => {
                return Err(unfinished(path, *line));
            }
            Some((_, _, block)) => {
                block.body.push_str(bare);
                block.body.push('\n');
            }
            None => {
                if let Some(rest) = bare.strip_prefix(BEGIN) {
                    open = Some((at, number, parse_begin(rest)));
                }
            }
        }
        at = end;
    }
    match open {
        Some((_, line, _)) => Err(unfinished(path, line)),
        None => Ok(found),
    }
}

fn unfinished(path: &Path, line: usize) -> pantala_core::Error {
    refuse(
        path,
        Some(line),
        format!("what setup put in begins here and has no end, \"{END_HEAD}\""),
        format!(
            "put that line back, or copy {} back",
            backup_path(path).display()
        ),
    )
}

fn parse_begin(rest: &str) -> Block {
    let (head, instead) = match rest.split_once(INSTEAD) {
        Some((head, line)) => (head, Some(line.to_owned())),
        None => (rest, None),
    };
    let (head, made) = match head.split_once(MADE) {
        Some((head, count)) => (head, Some(count.trim().parse().unwrap_or(0))),
        None => (head, None),
    };
    Block {
        name: head.strip_prefix(FOR).map(|name| name.trim().to_owned()),
        made,
        instead,
        body: String::new(),
    }
}

/// `text` with `block` at `at`, the start of a line or the end of the text. Where the block has
/// an [`instead`](Block::instead), this line is expected at `at` and goes.
pub(crate) fn insert(text: &str, at: usize, block: &Block) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut lines = vec![begin(block)];
    lines.extend(block.body.lines().map(str::to_owned));
    lines.push(END.to_owned());
    let mut put = lines.join(newline);
    let (before, after) = text.split_at(at);
    let after = match &block.instead {
        Some(line) => after.strip_prefix(line.as_str()).unwrap_or(after),
        None => after,
    };
    match &block.instead {
        // The replaced line's own end, if it has one, becomes the block's.
        Some(_) => format!("{before}{put}{after}"),
        // A text without an end of its last line gets that back when the block goes.
        None if after.is_empty() && !before.is_empty() && !before.ends_with('\n') => {
            format!("{before}{newline}{put}")
        }
        None => {
            put.push_str(newline);
            format!("{before}{put}{after}")
        }
    }
}

fn begin(block: &Block) -> String {
    let mut line = BEGIN.to_owned();
    if let Some(name) = &block.name {
        line += &format!("{FOR}{name}");
    }
    if let Some(count) = block.made {
        line += &format!("{MADE}{count}");
    }
    if let Some(instead) = &block.instead {
        line += &format!("{INSTEAD}{instead}");
    }
    line
}

/// `text` without the block, and with what stood in its place before.
pub(crate) fn remove(text: &str, found: &Found) -> String {
    let put = &text[found.span.clone()];
    let last_end = line_end(put);
    let (mut before, after) = (&text[..found.span.start], &text[found.span.end..]);
    match &found.block.instead {
        Some(line) => format!("{before}{line}{last_end}{after}"),
        None => {
            if last_end.is_empty() {
                before = before.strip_suffix('\n').unwrap_or(before);
                before = before.strip_suffix('\r').unwrap_or(before);
            }
            format!("{before}{after}")
        }
    }
}

/// `text` with the block's lines but without the comments around them: they are the user's now.
pub(crate) fn keep(text: &str, found: &Found) -> String {
    let put = &text[found.span.clone()];
    let first = put.find('\n').map_or(put.len(), |at| at + 1);
    let last = put[..put.len() - line_end(put).len()]
        .rfind('\n')
        .map_or(first, |at| at + 1)
        .max(first);
    format!(
        "{}{}{}",
        &text[..found.span.start],
        &put[first..last],
        &text[found.span.end..]
    )
}

fn line_end(text: &str) -> &'static str {
    match (text.ends_with("\r\n"), text.ends_with('\n')) {
        (true, _) => "\r\n",
        (_, true) => "\n",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_in_comes_out(
            lines in prop::collection::vec("[a-z#= ]{0,6}", 0..6),
            windows in any::<bool>(),
            ended in any::<bool>(),
            at in any::<prop::sample::Index>(),
            instead in any::<bool>(),
            made in prop::option::of(0usize..3),
        ) {
            let newline = if windows { "\r\n" } else { "\n" };
            let mut text = lines.join(newline);
            if ended && !text.is_empty() {
                text.push_str(newline);
            }
            let mut starts: Vec<usize> = text
                .match_indices('\n').map(|(at, _)| at + 1).chain([0, text.len()]).collect();
            starts.sort_unstable();
            starts.dedup();
            let at = starts[at.index(starts.len())];
            let line = text[at..].split(['\r', '\n']).next().unwrap_or_default();
            let block = Block {
                name: Some("hub.example".into()),
                made,
                instead: (instead && !line.is_empty()).then(|| line.to_owned()),
                body: "a\nb\n".into(),
            };
            let put = insert(&text, at, &block);
            let found = find(Path::new("f"), &put).unwrap();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].block, &block);
            prop_assert_eq!(remove(&put, &found[0]), text);
            prop_assert!(keep(&put, &found[0]).contains("a"));
        }
    }

    #[test]
    fn half_a_block_is_refused() {
        let text = insert(
            "x = 1\n",
            6,
            &Block {
                body: "y = 2\n".into(),
                ..Block::default()
            },
        );
        let half = text.lines().take(3).collect::<Vec<_>>().join("\n");
        let error = find(Path::new("f"), &half).unwrap_err();
        assert!(error.what().starts_with("f:2: "), "{error}");
        assert!(find(Path::new("f"), &format!("{half}\n{half}")).is_err());
    }
}
