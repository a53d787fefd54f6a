//! The daemon's pages: for people in a terminal or a browser, and for programs.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use pantala_core::format_size;
use serde::Serialize;

use super::{
    overview::{Cached, Overview, Stream},
    server::refusal,
};
use crate::{
    headers::list,
    reply::{self, Reply},
    server::{Client, Context},
};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// The page is ours alone: nothing is loaded, nothing runs, nobody frames it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
);

/// How a page is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Html,
    Json,
}

/// Which part of the overview a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Streams,
    Cache,
}

/// The front page: everything.
pub(crate) async fn front(context: &Context, client: &Client, headers: &HeaderMap) -> Reply {
    if refusal(context, client, headers).is_some() {
        // Where it is that somebody sees who came from elsewhere.
        let line = "this is a dfdaemon; what it does is for its own host to see";
        return reply::text(StatusCode::FORBIDDEN, line);
    }
    let overview = Overview::of(&context.node).await;
    match form(headers) {
        Form::Json => json(&overview),
        Form::Html => html(&overview),
        Form::Text => {
            let parts = [streams(&overview.streams), cache(&overview.cache)];
            let text = format!("{}\n\n{}", summary(&overview), parts.join("\n"));
            reply::text(StatusCode::OK, text.trim_end())
        }
    }
}

/// A part of it.
pub(super) async fn part(context: &Context, headers: &HeaderMap, part: Part) -> Reply {
    let overview = Overview::of(&context.node).await;
    match (part, form(headers)) {
        (Part::Streams, Form::Json) => json(&overview.streams),
        (Part::Cache, Form::Json) => json(&overview.cache),
        (_, Form::Html) => html(&overview),
        (Part::Streams, Form::Text) => text(&streams(&overview.streams)),
        (Part::Cache, Form::Text) => text(&cache(&overview.cache)),
    }
}

/// The first that the client takes; text for one that takes anything.
fn form(headers: &HeaderMap) -> Form {
    list(headers, header::ACCEPT)
        .find_map(
            |kind| match kind.split(';').next().unwrap_or_default().trim() {
                "application/json" => Some(Form::Json),
                "text/html" => Some(Form::Html),
                "text/plain" => Some(Form::Text),
                _ => None,
            },
        )
        .unwrap_or(Form::Text)
}

fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(json) => reply::page(StatusCode::OK, JSON, json),
        Err(error) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn text(table: &str) -> Reply {
    reply::text(StatusCode::OK, table.trim_end())
}

fn summary(overview: &Overview) -> String {
    let (memory, moved) = (&overview.memory, &overview.moved);
    format!(
        "memory {} of {}; since the start {} from origins, {} from peers, {} to peers, {} to readers",
        format_size(memory.used),
        format_size(memory.limit),
        format_size(moved.from_origins),
        format_size(moved.from_peers),
        format_size(moved.to_peers),
        format_size(moved.to_readers),
    )
}

/// A line per reader.
fn streams(streams: &[Stream]) -> String {
    if streams.is_empty() {
        return "nothing streams now\n".to_owned();
    }
    let mut table =
        String::from("TASK      LENGTH      AT  WINDOW                 COMING  PARENTS  URL\n");
    for stream in streams {
        let rest = format!(
            "{:>6}  {:>7}  {}",
            stream.pieces_in_flight, stream.parents, stream.url
        );
        let head = format!("{:<8}  {:<9}", short(&stream.task), length(stream.length));
        for window in &stream.windows {
            let at = stream.position(window);
            let at = at.map_or_else(|| "?".to_owned(), |at| format!("{at}%"));
            let bar = bar(window.held, window.size);
            // Writing to a string does not fail.
            let _ = writeln!(table, "{head} {at:>4}  {bar:<21}  {rest}");
        }
        if stream.windows.is_empty() {
            let _ = writeln!(table, "{head} {:>4}  {:<21}  {rest}", "-", "no reader");
        }
    }
    table
}

/// A line per content.
fn cache(cache: &[Cached]) -> String {
    if cache.is_empty() {
        return "memory holds nothing\n".to_owned();
    }
    let mut table = String::from("TASK      LENGTH     HELD       PIECES       URL\n");
    for cached in cache {
        let pieces = cached
            .pieces
            .map_or("?".to_owned(), |pieces| pieces.to_string());
        let _ = writeln!(
            table,
            "{:<8}  {:<9}  {:<9}  {:<11}  {}",
            short(&cached.task),
            length(cached.length),
            format_size(cached.bytes_held),
            format!("{}/{pieces}", cached.pieces_held),
            cached.url,
        );
    }
    table
}

/// `###.....` with the figures behind it.
fn bar(held: u32, size: u32) -> String {
    const WIDTH: u32 = 12;
    let full = (u64::from(held) * u64::from(WIDTH)).div_ceil(u64::from(size.max(1)));
    let full = (full as usize).min(WIDTH as usize);
    format!(
        "{}{} {held}/{size}",
        "#".repeat(full),
        ".".repeat(WIDTH as usize - full)
    )
}

fn short(task: &str) -> &str {
    task.get(..8).unwrap_or(task)
}

fn length(length: Option<u64>) -> String {
    length.map_or("?".to_owned(), format_size)
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884;vertical-align:top}\
th{font-weight:600}td.n,th.n{text-align:right}td.u{word-break:break-all}\
code{font-size:.9em}p{margin:.4rem 0}progress,meter{width:9rem}.dim{opacity:.65}";

fn html(overview: &Overview) -> Reply {
    let memory = &overview.memory;
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>dfdaemon</title>\
         <meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=2><style>{STYLE}</style>\
         <h1>dfdaemon</h1><p><meter max={} value={}></meter> {}</p><h2>Streams</h2>",
        memory.limit,
        memory.used,
        escape(&summary(overview)),
    );
    if overview.streams.is_empty() {
        page.push_str("<p class=dim>Nothing streams now.</p>");
    } else {
        page.push_str(
            "<table><tr><th>Content<th class=n>Length<th>Readers: position, window\
             <th class=n>Coming<th class=n>Parents<th>Task",
        );
        for stream in &overview.streams {
            stream_row(&mut page, stream);
        }
        page.push_str("</table>");
    }
    page.push_str("<h2>Memory holds</h2>");
    if overview.cache.is_empty() {
        page.push_str("<p class=dim>Nothing.</p>");
    } else {
        page.push_str("<table><tr><th>Content<th class=n>Length<th class=n>Held<th>Pieces<th>Task");
        for cached in &overview.cache {
            let of = cached
                .pieces
                .map_or("?".to_owned(), |pieces| pieces.to_string());
            let _ = write!(
                page,
                "<tr><td class=u>{}<td class=n>{}<td class=n>{}<td>{}/{of}<td><code>{}</code>",
                escape(&cached.url),
                length(cached.length),
                format_size(cached.bytes_held),
                cached.pieces_held,
                short(&cached.task),
            );
        }
        page.push_str("</table>");
    }
    page.push_str(
        "<p class=dim>As text: <code>curl</code> this page. As JSON: with \
         <code>Accept: application/json</code>. Figures: <a href=/metrics>/metrics</a>.</p>",
    );
    let mut reply = reply::page(StatusCode::OK, HTML, page);
    reply
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, POLICY);
    reply
}

fn stream_row(page: &mut String, stream: &Stream) {
    let _ = write!(
        page,
        "<tr><td class=u>{}<td class=n>{}<td>",
        escape(&stream.url),
        length(stream.length)
    );
    for window in &stream.windows {
        let at = stream.position(window).unwrap_or(0);
        let _ = write!(
            page,
            "<div><progress max=100 value={at}></progress> {at}% \
             <span class=dim>{} of {} pieces ahead are here</span></div>",
            window.held, window.size
        );
    }
    if stream.windows.is_empty() {
        page.push_str("<span class=dim>no reader</span>");
    }
    let lease = if stream.leased { ", origin" } else { "" };
    let _ = write!(
        page,
        "<td class=n>{}<td class=n>{}{lease}<td><code>{}</code>",
        stream.pieces_in_flight,
        stream.parents,
        short(&stream.task)
    );
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_the_form() {
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            form(&headers)
        };
        assert_eq!(form("*/*"), Form::Text);
        assert_eq!(
            form("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
            Form::Html
        );
        assert_eq!(form("application/json"), Form::Json);
        assert_eq!(super::form(&HeaderMap::new()), Form::Text);
    }

    #[test]
    fn a_window_is_drawn() {
        assert_eq!(bar(0, 8), "............ 0/8");
        assert_eq!(bar(4, 8), "######...... 4/8");
        assert_eq!(bar(8, 8), "############ 8/8");
        assert_eq!(bar(0, 0), "............ 0/0");
    }

    #[test]
    fn nothing_of_a_url_is_markup() {
        assert_eq!(
            escape("<a href='x'>&\""),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;"
        );
    }
}
