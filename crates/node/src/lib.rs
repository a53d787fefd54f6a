//! The peer: one library that `dfdaemon` and `dfget` share.
//!
//! Participants: a [`Node`] per process. Readers [`Node::open`] content and take it from a
//! [`StreamIo`] in ascending order. Other peers are children (served by the peer server) or
//! parents (reached over links). A task's *driver* owns its brain, [`pantala_window::Picker`], and
//! carries out what it decides with real sockets.
//!
//! Goals: bytes go from the socket they come by to the sockets they leave by through one buffer;
//! a reader only ever gets verified bytes, or such that came from the origin itself; whatever
//! fails, the stream goes on at the same byte from elsewhere, the origin last.
//!
//! Non-goals: HTTP for clients (the proxy's), flags and files (the programs'), disks (nobody's).
//!
//! Who owns whom: the node owns a task per content (driver), per link, per child and per origin
//! transfer; all of them end with the node's cancellation token and are awaited by
//! [`Node::stop`].

mod alone;
mod announce;
mod clock;
mod direct;
mod download;
mod driver;
mod error;
mod key;
mod limiter;
mod line;
mod measure;
mod metrics;
mod node;
mod prefetch;
mod rates;
mod readers;
mod registration;
mod run;
mod seats;
mod shelf;
mod socket;
mod stream;
mod task;
mod upload;

pub use alone::{Claim, Place};
pub use direct::{Direct, DirectHead, DirectStream};
pub use metrics::{Metrics, Totals};
pub use node::{Content, ContentRequest, Kept, Node, NodeConfig, Opened, Range, StreamView};
pub use pantala_store::Eviction;
pub use prefetch::Prefetch;
pub use rates::RateLimits;
pub use readers::Pause;
pub use seats::{InUse, Seat, Seats};
pub use stream::StreamIo;
