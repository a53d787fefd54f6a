//! What a scripted origin answers, said in as few words as a test can bear. It sends nothing
//! itself.

use crate::Content;

/// One answer of a [`Site`](crate::Site): a status, headers and a body, and how it is sent.
#[derive(Debug, Clone)]
pub struct Page {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Content,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    pub(crate) ranges: bool,
    pub(crate) conditions: bool,
    pub(crate) length: bool,
    pub(crate) hold_at: Option<u64>,
    pub(crate) hold_head: bool,
}

impl Page {
    /// This content with status 200, in ranges too, and without a validator or any other header.
    pub fn of(content: &Content) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: content.clone(),
            etag: None,
            last_modified: None,
            ranges: true,
            conditions: true,
            length: true,
            hold_at: None,
            hold_head: false,
        }
    }

    /// An answer with this status and a line of text.
    pub fn status(status: u16) -> Self {
        let text = format!("this is a {status}\n").into_bytes();
        Self {
            status,
            ranges: false,
            ..Self::of(&Content::of(text))
        }
    }

    /// The refusal of a reader without good credentials.
    pub fn unauthorized() -> Self {
        Self::status(401).header("WWW-Authenticate", "Basic realm=\"tests\"")
    }

    /// A page that asks a person to log in, with status 200.
    pub fn login() -> Self {
        let text = "<html><title>Sign in</title><form>Who are you?</form></html>\n";
        Self::of(&Content::of(text.into())).header("Content-Type", "text/html")
    }

    /// A redirect.
    pub fn redirect(to: &str) -> Self {
        Self::status(302).header("Location", to)
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Fresh for so many seconds.
    #[must_use]
    pub fn max_age(self, seconds: u64) -> Self {
        self.header("Cache-Control", &format!("max-age={seconds}"))
    }

    /// An entity tag as it is sent, quotes and weakness included. `If-None-Match` and `If-Range`
    /// are held against it.
    #[must_use]
    pub fn etag(mut self, etag: &str) -> Self {
        self.etag = Some(etag.to_owned());
        self
    }

    /// A date. `If-Modified-Since` and `If-Range` are held against it.
    #[must_use]
    pub fn last_modified(mut self, date: &str) -> Self {
        self.last_modified = Some(date.to_owned());
        self
    }

    /// With the headers by which a registry names a content: its digest as the entity tag and in
    /// `Docker-Content-Digest`.
    #[must_use]
    pub fn named(self) -> Self {
        let digest = format!("sha256:{}", self.body.sha256());
        self.etag(&format!("\"{digest}\""))
            .header("Docker-Content-Digest", &digest)
    }

    /// Answers conditional requests as if they were none, whatever validators it sends.
    #[must_use]
    pub fn unconditional(mut self) -> Self {
        self.conditions = false;
        self
    }

    /// Answers every range with the whole, and does not offer any.
    #[must_use]
    pub fn without_ranges(mut self) -> Self {
        self.ranges = false;
        self
    }

    /// Sends chunks and no length.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.length = false;
        self
    }

    /// Sends nothing from this byte of the content on before [`Site::release`](crate::Site::release).
    #[must_use]
    pub fn hold_at(mut self, byte: u64) -> Self {
        self.hold_at = Some(byte);
        self
    }

    /// Sends nothing at all before [`Site::release`](crate::Site::release).
    #[must_use]
    pub fn hold_head(mut self) -> Self {
        self.hold_head = true;
        self
    }

    /// Whether a conditional request is told that nothing has changed.
    pub(crate) fn is_unchanged(&self, if_none_match: Option<&str>, since: Option<&str>) -> bool {
        if !self.conditions || self.status != 200 {
            return false;
        }
        let weakly = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        match (if_none_match, since) {
            // With a tag in the question its date counts for nothing (RFC 9110, 13.1.3).
            (Some(tags), _) => self.etag.as_deref().is_some_and(|own| {
                tags.split(',')
                    .any(|tag| tag.trim() == "*" || weakly(tag) == weakly(own))
            }),
            (None, Some(date)) => self.last_modified.as_deref() == Some(date),
            (None, None) => false,
        }
    }

    /// Whether a part of this may be added to what the sender of `If-Range` has (RFC 9110, 13.1.5).
    pub(crate) fn range_holds(&self, if_range: &str) -> bool {
        let strong = |tag: &&str| !tag.starts_with("W/");
        self.etag.as_deref().filter(strong) == Some(if_range)
            || self.last_modified.as_deref() == Some(if_range)
    }
}
