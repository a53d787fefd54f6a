//! The client of origins against scripted origins, over real sockets. A test of one function belongs beside that function.
//!
//! One program, because each more is linked with everything the crate uses.

mod answers;
mod askers;
mod auth;
mod broken;
mod reuse;
mod support;
mod tls;
