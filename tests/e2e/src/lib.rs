//! What the end-to-end tests stand on: the programs and their real neighbours as child processes
//! on loopback, and an origin that misbehaves as told.
//!
//! Nothing here sleeps to let something happen: it waits for the condition itself, with a
//! deadline far beyond what a slow machine needs. Every process ends with the value that stands
//! for it, and says on a failed test's output what it wrote to standard error.

mod archive;
mod containerd;
mod content;
mod cri;
mod dfdaemon;
mod dfget;
mod dockerd;
mod http;
mod image;
mod needs;
mod nginx;
mod origin;
mod page;
mod peers;
mod podman;
mod ports;
mod process;
mod programs;
mod registry;
mod relay;
mod silent;
mod site;
mod swarm;
mod tls;
mod token;
mod users;
mod wait;

pub use archive::{gzip, tar};
pub use containerd::Containerd;
pub use content::{Content, sha256_of_file};
pub use cri::pull_image;
pub use dfdaemon::Dfdaemon;
pub use dfget::{Dfget, part_files};
pub use dockerd::Dockerd;
pub use http::{Answer, ask, begin_get, exchange, head_of_answer};
pub use image::Image;
pub use needs::{Need, missing};
pub use nginx::{Nginx, Served};
pub use origin::{Asked, Length, Origin, Script, Validator};
pub use page::Page;
pub use peers::Peers;
pub use podman::Podman;
pub use ports::free_port;
pub use process::{DiskIo, Finished, Process, Signal};
pub use programs::{Supernode, http_get, program, tool};
pub use registry::{BlobRead, Registry, Request, Setup, skopeo};
pub use relay::Relay;
pub use silent::{Stalled, silent};
pub use site::{Credentials, Hit, Site};
pub use swarm::Swarm;
pub use tls::Certificates;
pub use token::TokenService;
pub use users::{Htpasswd, READER, WRITER, login};
pub use wait::{DEADLINE, until};

/// One mebibyte.
pub const MIB: usize = 1 << 20;

/// Ends the test here, with the reason on its output, when something it needs is not there.
///
/// With `CI=true` and as root everything must be there: then it fails instead.
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {
        if let Some(reason) = $crate::missing(&[$($need),+]) {
            println!("left out: {reason}");
            return;
        }
    };
}
