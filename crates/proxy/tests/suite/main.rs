//! The proxy and mirror as clients meet them, over real sockets. A test of one function belongs beside that function.
//!
//! One program, because each more is linked with everything the crate uses.

mod broken;
mod local_api;
mod messages;
mod mirror;
mod operators;
mod private;
mod proxy;
mod ranges;
mod rules;
mod sharing;
mod support;
