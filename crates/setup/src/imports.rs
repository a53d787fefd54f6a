//! The files that containerd's configuration imports: what they say goes before the main file.
//!
//! containerd does not merge a plugin's settings: of several files with a section for the CRI
//! plugin the last one counts, and all others are as if they were not there.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use pantala_core::Result;

use crate::{
    ReadFiles, list, read, refuse,
    toml::{line_of, parse},
};

/// The most files that are followed; no honest configuration comes near.
const MOST: usize = 64;

/// The imported files in the order in which they count, with their text.
pub(crate) fn all(
    files: &dyn ReadFiles,
    path: &Path,
    text: &str,
) -> Result<Vec<(PathBuf, String)>> {
    let mut queue: VecDeque<PathBuf> = named(files, path, text)?.into();
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    while let Some(next) = queue.pop_front() {
        if next == path || found.iter().any(|(known, _)| *known == next) {
            continue;
        }
        if found.len() == MOST {
            let what = format!("imports more than {MOST} files");
            return Err(refuse(path, None, what, "set config_path by hand"));
        }
        let Some(text) = read(files, &next)? else {
            continue;
        };
        queue.extend(named(files, &next, &text)?);
        found.push((next, text));
    }
    Ok(found)
}

/// The files that one file names.
fn named(files: &dyn ReadFiles, path: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let document = parse(path, text)?;
    let Some((key, item)) = document.as_table().get_key_value("imports") else {
        return Ok(Vec::new());
    };
    let at = key.span().map(|span| line_of(text, span.start));
    let bad = |what: &str| refuse(path, at, what, "correct it first");
    let Some(array) = item.as_array() else {
        return Err(bad("imports is not a list"));
    };
    let mut all = Vec::new();
    for value in array {
        let Some(pattern) = value.as_str() else {
            return Err(bad("imports holds what is not a path"));
        };
        // A relative one stands beside the file that names it.
        let place = path.parent().unwrap_or(Path::new("/")).join(pattern);
        all.extend(
            matching(files, &place).map_err(|unreadable| match unreadable {
                Some(error) => error,
                None => refuse(
                    path,
                    at,
                    format!("imports {pattern:?}, a pattern that setup cannot follow"),
                    "name the files, or use * and ? in the last part of the path alone",
                ),
            })?,
        );
    }
    Ok(all)
}

/// The files that a pattern stands for, by name. The error is `None` for a pattern of a kind that
/// is not known here.
fn matching(
    files: &dyn ReadFiles,
    place: &Path,
) -> Result<Vec<PathBuf>, Option<pantala_core::Error>> {
    let is_pattern = |text: &str| text.contains(['*', '?', '[', '\\']);
    let (Some(dir), Some(name)) = (place.parent(), place.file_name()) else {
        return Err(None);
    };
    let (dir_text, name) = (dir.to_string_lossy(), name.to_string_lossy());
    if is_pattern(&dir_text) || name.contains(['[', '\\']) {
        return Err(None);
    }
    if !is_pattern(&name) {
        return Ok(vec![place.to_owned()]);
    }
    let names = list(files, dir).map_err(Some)?.unwrap_or_default();
    let matching = names
        .iter()
        .filter(|one| fits(one.as_bytes(), name.as_bytes()));
    Ok(matching.map(|one| dir.join(one)).collect())
}

/// Whether a name fits a pattern of `*`, `?` and letters.
fn fits(name: &[u8], pattern: &[u8]) -> bool {
    // Where to go on when the last star has to stand for one more letter.
    let (mut at, mut of, mut star) = (0, 0, None);
    while at < name.len() {
        match pattern.get(of) {
            Some(b'*') => {
                star = Some((at, of));
                of += 1;
            }
            Some(&letter) if letter == b'?' || letter == name[at] => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((from, star_of)) = star else {
                    return false;
                };
                star = Some((from + 1, star_of));
                at = from + 1;
                of = star_of + 1;
            }
        }
    }
    pattern[of..].iter().all(|&letter| letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (name, pattern, expected) in [
            ("a.toml", "*.toml", true),
            ("a.toml", "a.tom?", true),
            ("a.toml", "*", true),
            ("a.toml", "*a*o*l*", true),
            ("a.toml", "*.tom", false),
            ("a.toml", "?.toml?", false),
            ("", "*", true),
            ("aab", "*ab", true),
        ] {
            assert_eq!(
                fits(name.as_bytes(), pattern.as_bytes()),
                expected,
                "{name} {pattern}"
            );
        }
    }
}
