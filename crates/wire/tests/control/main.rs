//! Both ends of the control connection, over real sockets.

mod end_to_end;
mod support;
mod vanish;
