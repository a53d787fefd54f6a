//! Whose word counts for what: who says what a content is, where it ends, that it is wrong, and what
//! becomes of what contradicts that.

mod costs;
mod facts;
mod lab;
mod leases;
mod transfers;
