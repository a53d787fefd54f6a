//! One request to a scripted origin and the head of its answer. It reads and writes no connection.

use std::collections::HashMap;

use crate::{Page, origin::range};

/// What a request says.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: HashMap<String, String>,
}

impl Request {
    pub(super) fn read(head: &[String]) -> Self {
        let mut words = head.first().map_or("", String::as_str).split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, target) = (word(), word());
        let headers = head.iter().skip(1).filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        Self {
            method,
            target,
            headers: headers.collect(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn body_length(&self) -> usize {
        let length = self.header("content-length");
        length.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// What a request is told, before the body.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The bytes of the page's body that are sent.
    pub(super) part: (u64, u64),
}

impl Answer {
    pub(super) fn new(page: &Page, request: &Request) -> Self {
        let asked = |name: &str| request.header(name);
        let length = page.body.len();
        let whole = Self {
            status: page.status,
            part: (0, length),
        };
        if page.is_unchanged(asked("if-none-match"), asked("if-modified-since")) {
            return Self {
                status: 304,
                ..whole
            };
        }
        let holds = asked("if-range").is_none_or(|validator| page.range_holds(validator));
        let wanted = asked("range").filter(|_| page.ranges && holds && request.method == "GET");
        match wanted.and_then(|text| range(text, length)) {
            Some((first, end)) if first < end => Self {
                status: 206,
                part: (first, end),
            },
            Some(_) => Self {
                status: 416,
                part: (0, 0),
            },
            None => whole,
        }
    }

    pub(super) fn head(&self, page: &Page) -> String {
        let (first, end) = self.part;
        let length = page.body.len();
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        match self.status {
            206 => head += &format!("Content-Range: bytes {first}-{}/{length}\r\n", end - 1),
            416 => head += &format!("Content-Range: bytes */{length}\r\n"),
            _ => {}
        }
        if page.ranges {
            head += "Accept-Ranges: bytes\r\n";
        }
        let validators = [("ETag", &page.etag), ("Last-Modified", &page.last_modified)];
        for (name, value) in validators {
            if let Some(value) = value {
                head += &format!("{name}: {value}\r\n");
            }
        }
        for (name, value) in &page.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match self.status {
            304 => {}
            _ if page.length => head += &format!("Content-Length: {}\r\n", end - first),
            _ => head += "Transfer-Encoding: chunked\r\n",
        }
        head + "\r\n"
    }
}
