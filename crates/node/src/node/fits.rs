//! Contents that this node cannot share, however they are asked for: those go to its readers
//! straight from the origin.

use pantala_core::{
    ContentMeta, Error, Geometry, Kind, MAX_LENGTH, Who, control::Known, format_size,
};

use super::Node;
use crate::run::ORIGIN_BUFFER;

impl Node {
    /// Whether this node takes part in a content that the supernode knows: it can share it, and has nothing
    /// else under its name.
    pub(super) fn takes(&self, known: &Known) -> bool {
        self.unfit(&known.meta).is_none() && self.agrees(&known.task, &known.meta)
    }

    /// Why content cannot pass through this node's memory in pieces, if it cannot: a window has one
    /// piece at least, beside what a transfer from the origin reads ahead.
    pub(super) fn unfit(&self, meta: &ContentMeta) -> Option<Error> {
        let length = meta.length?;
        if length > MAX_LENGTH {
            let what = format!("content of {length} bytes is not shared: it is too long");
            return Some(Error::new(Who::Origin, Kind::Unavailable, what));
        }
        let least = Geometry::new(meta.length).piece_size() + ORIGIN_BUFFER;
        let memory = self.inner.ports.store.budget().limit();
        (memory < least).then(|| {
            let what = format!("content of {length} bytes needs --memory of {least} bytes at least to be shared, not {}",
                format_size(memory));
            Error::new(Who::Us, Kind::NoMemory, what)
        })
    }
}
