//! The local API: what this host's own programs ask of a running dfdaemon.
//!
//! `POST /v1/stream` takes a [`StreamRequest`] as JSON and answers with the content: status 200,
//! the bytes as they come, whatever part was asked for. Its headers say how many bytes there will
//! be ([`LENGTH`]), at which offset of the content they begin ([`START`]), which task it is
//! ([`TASK`]), and what the origin said of the content. To a client that takes trailers the body
//! ends with [`END`] or [`ERROR`]; to any other it is broken off when it cannot go on. What fails
//! before the first byte is a status and an [`ErrorReport`].
//!
//! `GET /v1/streams` lists what streams now with each reader's window, `GET /v1/cache` what memory
//! holds, and `GET /` both: as text in a terminal, as a page in a browser, and as JSON for programs
//! that accept `application/json`.
//!
//! Only programs on this host may use it, and no page in a browser.

pub mod client;
mod overview;
pub(crate) mod pages;
mod report;
pub(crate) mod server;

use http::HeaderName;
use serde::{Deserialize, Serialize};

pub use report::ErrorReport;

/// Bytes there will be, when known.
pub const LENGTH: HeaderName = HeaderName::from_static("x-pantala-length");
/// The content's offset of the first byte.
pub const START: HeaderName = HeaderName::from_static("x-pantala-start");
/// The task, when the content is shared.
pub const TASK: HeaderName = HeaderName::from_static("x-pantala-task");
/// A trailer: there is nothing more to come.
pub const END: HeaderName = HeaderName::from_static("x-pantala-end");
/// A trailer: the content cannot go on, and why, as an [`ErrorReport`].
pub const ERROR: HeaderName = HeaderName::from_static("x-pantala-error");

/// Content to stream.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRequest {
    /// Where it is.
    pub url: String,
    /// The user's own headers: names and values. They go to the origin only.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// `0-1023`, `1024-` or `-1024`; everything when `None`.
    #[serde(default)]
    pub range: Option<String>,
    /// The digest the content must have, like `sha256:…`.
    #[serde(default)]
    pub digest: Option<String>,
    /// Bytes a second at most.
    #[serde(default)]
    pub limit_rate: Option<u64>,
    /// The origin may not be asked.
    #[serde(default)]
    pub no_origin: bool,
    /// Nobody waits for the bytes: all other downloads go first, here and at peers.
    #[serde(default)]
    pub background: bool,
}

/// Leaves out the headers and the query: both may carry credentials.
impl std::fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamRequest")
            .field("url", &pantala_core::display_url(&self.url))
            .field("range", &self.range)
            .field("digest", &self.digest)
            .field("limit_rate", &self.limit_rate)
            .field("no_origin", &self.no_origin)
            .field("background", &self.background)
            .finish_non_exhaustive()
    }
}
