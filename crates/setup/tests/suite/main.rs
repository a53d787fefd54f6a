//! The set-up of container runtimes, on configuration files of a folder of the test's own.
//!
//! One program, because each more is linked with everything the crate uses.

mod common;
mod containerd;
mod disk;
mod docker;
mod podman;
