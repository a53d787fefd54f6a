//! The programs end to end, against real parts.

mod alone;
mod output;
