use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Content, DEADLINE};

/// The answer to one HTTP request, as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case and values, in their order.
    pub headers: Vec<(String, String)>,
    /// The body without chunks.
    pub body: Vec<u8>,
    /// Whether the body came to the end that was announced.
    pub whole: bool,
}

impl Answer {
    /// The values of a header, each of its lines.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(other, _)| other == name);
        lines.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a header that stands there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        match self.all(name)[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// It is this content, whole.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_is(&self, content: &Content) {
        assert_eq!(self.status, 200, "{}", self.shown());
        assert!(self.whole, "it ends early: {}", self.body.len());
        content.assert_bytes(&self.body);
    }

    /// It is this part of a content; both bytes are included.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_is_part(&self, content: &Content, first: usize, last: usize) {
        assert_eq!(self.status, 206, "{}", self.shown());
        Content::of(content.bytes()[first..=last].to_vec()).assert_bytes(&self.body);
    }

    /// Whatever it is, there is nothing of this content in it.
    ///
    /// # Panics
    /// When there is.
    #[track_caller]
    pub fn assert_nothing_of(&self, content: &Content) {
        let (status, len) = (self.status, self.body.len());
        let leaked = content.leaks_into(&self.body);
        assert!(!leaked, "a {status} of {len} bytes has bytes of it");
    }

    /// It is an origin's refusal, and has nothing of this content in it.
    ///
    /// # Panics
    /// When it is not, or has.
    #[track_caller]
    pub fn assert_refuses(&self, content: &Content) {
        self.assert_nothing_of(content);
        assert_eq!(self.status, 401, "{}", self.shown());
    }

    /// Its headers and the beginning of its body, for messages.
    fn shown(&self) -> String {
        let body: String = self.text().chars().take(200).collect();
        format!("{:?} {body:?}", self.headers)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request, exactly these header lines besides `Host` and `Connection`, and reads its
/// answer to the end of the connection.
///
/// # Panics
/// When no answer comes.
pub fn ask(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut bytes = head_of_request(addr, method, target, headers, body.len());
    bytes.extend_from_slice(body);
    let raw = exchange(addr, &bytes);
    parse(&raw, method == "HEAD")
        .unwrap_or_else(|| panic!("{method} {target}: {:?}", String::from_utf8_lossy(&raw)))
}

/// Sends a GET and does not read its answer: that is for whoever holds the connection.
///
/// # Panics
/// When nobody listens there.
pub fn begin_get(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    let request = head_of_request(addr, "GET", target, headers, 0);
    stream.write_all(&request).expect("a request is taken");
    stream
}

fn head_of_request(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: usize,
) -> Vec<u8> {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if body > 0 || matches!(method, "POST" | "PUT" | "PATCH") {
        request += &format!("Content-Length: {body}\r\n");
    }
    request += "Connection: close\r\n\r\n";
    request.into_bytes()
}

/// Sends bytes and reads until the other side has nothing more to say.
///
/// # Panics
/// When nobody listens there, or the answer does not end.
pub fn exchange(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("a time limit for reads");
    // Who refuses a request early does not read the rest of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(reset && !answer.is_empty(), "{error}");
    }
    answer
}

/// What comes as the first answer on a connection that stays open, up to the end of its head.
///
/// # Panics
/// When none comes.
pub fn head_of_answer(stream: &TcpStream, within: Duration) -> String {
    stream
        .set_read_timeout(Some(within))
        .expect("a time limit for reads");
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        let more = reader.read_line(&mut head).expect("the head of an answer");
        assert_ne!(more, 0, "only {head:?}");
    }
    head
}

/// `None` when it is not a whole answer.
fn parse(raw: &[u8], to_head: bool) -> Option<Answer> {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&raw[..end]);
    let mut lines = head.lines();
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &raw[end + 4..];
    if status == 100 {
        return parse(rest, to_head);
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
        whole: true,
    };
    if to_head || matches!(status, 204 | 304) {
        // Some servers refuse what they cannot read with a body to anything.
        answer.whole = rest.is_empty();
        return Some(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        (answer.body, answer.whole) = without_chunks(rest);
    } else {
        let length = answer.header("content-length").map(str::parse::<usize>);
        answer.whole = length.is_none_or(|length| length == Ok(rest.len()));
        answer.body = rest.to_vec();
    }
    Some(answer)
}

/// What the chunks held, and whether the last one came.
fn without_chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some((size, after)) = chunk_size(rest) {
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(&after[..size.min(after.len())]);
        let Some(next) = after
            .get(size..)
            .and_then(|rest| rest.strip_prefix(b"\r\n"))
        else {
            break;
        };
        rest = next;
    }
    (body, false)
}

fn chunk_size(rest: &[u8]) -> Option<(usize, &[u8])> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let size = std::str::from_utf8(&rest[..end]).ok()?;
    let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
    Some((size, &rest[end + 2..]))
}
