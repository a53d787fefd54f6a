//! dockerd: an entry of `registry-mirrors` in `daemon.json`.
//!
//! The file is JSON without comments, as dockerd reads it, so nothing in it can say whose the
//! entry is. The entry itself is what undoing looks for, and the backup says what was there
//! before: where the file is as setup left it, undoing gives back exactly that.

use std::{ops::Range, path::Path};

use jsonc_parser::{
    CollectOptions, ParseOptions, ParseResult,
    ast::{Array, Object, Value},
    common::Ranged as _,
    parse_to_ast,
};
use pantala_core::Result;

use crate::{Options, Plan, ReadFiles, backup_path, read, refuse};

const CONFIG: &str = "/etc/docker/daemon.json";
const KEY: &str = "registry-mirrors";

pub(crate) fn plan(options: &Options, files: &dyn ReadFiles) -> Result<Plan> {
    let mut plan = Plan::default();
    let path = Path::new(CONFIG);
    let url = options.url();
    let before = read(files, path)?;
    match options.undo {
        false => {
            let after = put_in(path, before.as_deref(), &url)?;
            if let Some(ahead) = ahead(&after, &url) {
                plan.advice.push(format!(
                    "{CONFIG} has {ahead} before {url}: dockerd asks in this order."
                ));
            }
            for other in loopback(&after) {
                if !same(&other, &url) {
                    plan.advice.push(format!(
                        "{CONFIG} also has the mirror {other}. {}",
                        how_to_take_out(&other)
                    ));
                }
            }
            plan.change(path.into(), before, Some(after), 0);
            advise(&mut plan);
        }
        true => {
            let backup = read(files, &backup_path(path))?;
            let after = take_out(path, before.as_deref(), backup.as_deref(), &url)?;
            if before == after
                && let Some(text) = &before
            {
                for other in loopback(text) {
                    plan.advice.push(format!(
                        "{CONFIG} has the mirror {other}. {}",
                        how_to_take_out(&other)
                    ));
                }
            }
            plan.change(path.into(), before, after, 1);
        }
    }
    if !plan.changes.is_empty() {
        plan.next.push("systemctl restart docker".into());
    }
    Ok(plan)
}

fn how_to_take_out(url: &str) -> String {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    format!("Was that dfdaemon? Then take it out with --undo --listen {address}.")
}

fn advise(plan: &mut Plan) {
    plan.advice.push(
        "dockerd uses mirrors for its default registry only. For others it has to go through \
         dfdaemon as a proxy: \"proxies\": {\"http-proxy\": …, \"https-proxy\": …} in daemon.json \
         (dockerd 23.0 and later), or HTTP_PROXY and HTTPS_PROXY in a systemd drop-in. HTTPS content \
         is then shared where dfdaemon intercepts (dfdaemon ca init)."
            .into(),
    );
    plan.advice.push(
        "A dockerd that is started with --registry-mirror does not start with registry-mirrors in \
         its file as well. dockerd --validate checks the file (23.0 and later)."
            .into(),
    );
}

/// `text` with `url` first among the mirrors. Where it is among them already nothing changes,
/// wherever it stands: somebody wanted it so.
fn put_in(path: &Path, text: Option<&str>, url: &str) -> Result<String> {
    let Some(text) = text else {
        return Ok(whole(url));
    };
    if body(text).trim().is_empty() {
        return Ok(format!("{text}{}", whole(url)));
    }
    let put = |at: usize, new: &str| format!("{}{new}{}", &text[..at], &text[at..]);
    let entry = format!("\"{url}\"");
    let parsed = parse(path, text)?;
    let object = object(path, text, &parsed)?;
    let shift = shift(text);
    let Some(mirrors) = mirrors(path, text, object)? else {
        let property = format!("\"{KEY}\": [{entry}]");
        let open = shift + object.range.start + 1;
        return Ok(match object.properties.last() {
            Some(last) => {
                let start = shift + last.range.start;
                let gap = gap(&text[..start]);
                put(shift + last.range.end, &format!(",{gap}{property}"))
            }
            None => {
                let inside = &text[open..shift + object.range.end - 1];
                let end = if inside.contains('\n') { "" } else { "\n" };
                put(open, &format!("\n  {property}{end}"))
            }
        });
    };
    if strings(mirrors).any(|(_, value)| same(value, url)) {
        return Ok(text.to_owned());
    }
    Ok(match mirrors.elements.first() {
        Some(first) => {
            let start = shift + first.range().start;
            put(start, &format!("{entry},{}", gap(&text[..start])))
        }
        None => put(shift + mirrors.range.start + 1, &entry),
    })
}

/// `text` without `url` among the mirrors.
fn take_out(
    path: &Path,
    text: Option<&str>,
    backup: Option<&str>,
    url: &str,
) -> Result<Option<String>> {
    let Some(text) = text else {
        return Ok(None);
    };
    // As setup left it: exactly what it found.
    if backup.is_some() || text == whole(url) {
        let put = put_in(path, backup, url);
        if put.is_ok_and(|put| put == text) {
            return Ok(backup.map(str::to_owned));
        }
    }
    if body(text).trim().is_empty() {
        return Ok(Some(text.to_owned()));
    }
    let parsed = parse(path, text)?;
    let object = object(path, text, &parsed)?;
    let shift = shift(text);
    let Some(mirrors) = mirrors(path, text, object)? else {
        return Ok(Some(text.to_owned()));
    };
    let Some((at, _)) = strings(mirrors).find(|(_, value)| same(value, url)) else {
        return Ok(Some(text.to_owned()));
    };
    let had = backup.and_then(mirrors_of);
    if had
        .as_ref()
        .is_some_and(|had| had.iter().any(|value| same(value, url)))
    {
        // It was there before setup ran.
        return Ok(Some(text.to_owned()));
    }
    let cut = |range: Range<usize>| {
        let (from, to) = (shift + range.start, shift + range.end);
        Some(format!("{}{}", &text[..from], &text[to..]))
    };
    let elements: Vec<Range<usize>> = mirrors.elements.iter().map(range).collect();
    if elements.len() > 1 || had.is_some() {
        return Ok(cut(lifted(&elements, at)));
    }
    let properties: Vec<Range<usize>> = object.properties.iter().map(range).collect();
    let at = object
        .properties
        .iter()
        .position(|one| one.name.as_str() == KEY);
    Ok(cut(lifted(&properties, at.unwrap_or_default())))
}

/// What to cut so that of these, which have commas between them, the one at `at` is gone.
fn lifted(all: &[Range<usize>], at: usize) -> Range<usize> {
    let this = all[at].clone();
    match (
        at.checked_sub(1).and_then(|at| all.get(at)),
        all.get(at + 1),
    ) {
        // Setup puts mirrors in front, and settings at the end.
        (None, Some(next)) => this.start..next.start,
        (Some(previous), _) => previous.end..this.end,
        (None, None) => this,
    }
}

fn range(part: &impl jsonc_parser::common::Ranged) -> Range<usize> {
    let range = part.range();
    range.start..range.end
}

/// The file that setup makes where there is none.
fn whole(url: &str) -> String {
    format!("{{\n  \"{KEY}\": [\"{url}\"]\n}}\n")
}

/// The white space before the end of `before`, for the next of its kind: on a line of its own, as
/// far in, or after a space.
fn gap(before: &str) -> &str {
    let space = &before[before.trim_end_matches([' ', '\t', '\r', '\n']).len()..];
    match space.contains('\n') {
        true => {
            &space[space
                .rfind("\r\n")
                .or(space.rfind('\n'))
                .unwrap_or_default()..]
        }
        false => " ",
    }
}

/// The first mirror, when `url` is among them behind it.
fn ahead(text: &str, url: &str) -> Option<String> {
    let first = mirrors_of(text)?.into_iter().next()?;
    (!same(&first, url)).then_some(first)
}

/// The mirrors that some dfdaemon may be behind.
fn loopback(text: &str) -> Vec<String> {
    let mut all = mirrors_of(text).unwrap_or_default();
    all.retain(|url| {
        let host = url.strip_prefix("http://").unwrap_or_default();
        let here = ["127.", "[::1]", "localhost"];
        here.iter().any(|it| host.starts_with(it))
    });
    all
}

/// dockerd adds a slash where there is none.
fn same(value: &str, url: &str) -> bool {
    value.trim_end_matches('/') == url
}

fn mirrors_of(text: &str) -> Option<Vec<String>> {
    let path = Path::new(CONFIG);
    let parsed = parse(path, text).ok()?;
    let array = mirrors(path, text, object(path, text, &parsed).ok()?).ok()??;
    Some(strings(array).map(|(_, value)| value.to_owned()).collect())
}

fn strings<'a>(array: &'a Array<'_>) -> impl Iterator<Item = (usize, &'a str)> {
    let text = |value: &'a Value<'_>| value.as_string_lit().map(|text| text.value.as_ref());
    let all = array.elements.iter().enumerate();
    all.filter_map(move |(at, value)| text(value).map(|text| (at, text)))
}

/// A byte order mark, which dockerd skips.
const MARK: &str = "\u{feff}";

fn body(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// How far what the parser saw is from the start of the text.
fn shift(text: &str) -> usize {
    text.len() - body(text).len()
}

fn parse<'t>(path: &Path, text: &'t str) -> Result<ParseResult<'t>> {
    // What dockerd reads: JSON, and nothing else.
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    parse_to_ast(body(text), &CollectOptions::default(), &strict).map_err(|error| {
        let place = format!("{}:{}", error.line_display(), error.column_display());
        let kind = error.kind().to_string();
        let what = format!(
            "{}:{place}: not JSON, {}",
            path.display(),
            kind.to_lowercase()
        );
        pantala_core::Error::new(pantala_core::Who::User, pantala_core::Kind::BadInput, what)
            .hint("correct it first; dockerd does not start with it either")
    })
}

fn object<'p, 't>(path: &Path, text: &str, parsed: &'p ParseResult<'t>) -> Result<&'p Object<'t>> {
    match &parsed.value {
        Some(Value::Object(object)) => Ok(object),
        other => {
            let at = other.as_ref().map_or(0, |value| value.range().start);
            let line = crate::toml::line_of(body(text), at);
            Err(refuse(
                path,
                Some(line),
                "not a JSON object",
                "correct it first",
            ))
        }
    }
}

fn mirrors<'p, 't>(
    path: &Path,
    text: &str,
    object: &'p Object<'t>,
) -> Result<Option<&'p Array<'t>>> {
    let mut all = object
        .properties
        .iter()
        .filter(|one| one.name.as_str() == KEY);
    let (first, second) = (all.next(), all.next());
    let line = |at: usize| Some(crate::toml::line_of(body(text), at));
    match (first.map(|one| &one.value), second) {
        (None, _) => Ok(None),
        (_, Some(twice)) => {
            let at = line(twice.range.start);
            Err(refuse(
                path,
                at,
                format!("{KEY} is there twice"),
                "take one out",
            ))
        }
        (Some(Value::Array(array)), _) => Ok(Some(array)),
        (Some(other), _) => {
            let at = line(other.range().start);
            let hint = format!("write \"{KEY}\": [\"…\", \"…\"]");
            Err(refuse(path, at, format!("{KEY} is not a list"), hint))
        }
    }
}
