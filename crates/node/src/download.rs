//! The download half of this peer: its connections to parents, and what it asks of them.
//!
//! Participants: a task's driver follows a parent and asks it for pieces; [`Links`] has one connection to
//! each parent for all tasks; a parent answers. The driver is told by [`Command`](crate::task::Command)s.
//!
//! Goals: bytes go from the socket straight into the piece that they belong to; whatever ends a
//! connection, each driver is told what has become of everything that it asked for there.
//!
//! Non-goals: whom to ask for what, and whether the bytes are right (the driver's and its brain's).

mod followers;
mod link;
mod links;
mod orders;
mod requests;

pub(crate) use links::Links;
pub(crate) use orders::{LinkHandle, NotTaken, Want};

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
