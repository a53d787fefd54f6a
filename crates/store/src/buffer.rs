use std::{ops::Range, ptr, sync::Arc};

use bytes::{BufMut, Bytes, buf::UninitSlice};

use crate::{
    Charge,
    slabs::Memory,
    sync::{AtomicUsize, Ordering},
};

/// One piece's bytes, readable while it grows.
///
/// There is one [`PieceWriter`], which appends; everybody else sees the part that was published
/// and can take slices of it without a copy. The memory is charged to the budget for as long as
/// anybody holds the buffer or a slice of it.
pub struct PieceBuffer {
    /// Before the charge: it is dropped first, so that the budget never counts too little.
    memory: Memory,
    /// Bytes published. Only the writer stores to it, with `Release`; who loads it with `Acquire`
    /// sees the bytes before it.
    filled: AtomicUsize,
    charge: Option<Charge>,
}

// SAFETY: the memory is owned by the buffer; bytes below `filled` are never written again, and
// bytes above it are only touched through the one `PieceWriter`.
unsafe impl Send for PieceBuffer {}
// SAFETY: as above.
unsafe impl Sync for PieceBuffer {}

/// The right to append to a [`PieceBuffer`]. There is never a second one.
#[derive(Debug)]
pub struct PieceWriter {
    buffer: Arc<PieceBuffer>,
}

impl PieceBuffer {
    /// An empty buffer of the charge's size, and the right to fill it.
    pub fn charged(charge: Charge) -> (Arc<Self>, PieceWriter) {
        let memory = Memory::new(charge.bytes() as usize, Some(charge.slabs()));
        Self::create(memory, Some(charge))
    }

    fn create(memory: Memory, charge: Option<Charge>) -> (Arc<Self>, PieceWriter) {
        let buffer = Arc::new(Self {
            memory,
            filled: AtomicUsize::new(0),
            charge,
        });
        (buffer.clone(), PieceWriter { buffer })
    }

    /// How many bytes it can take.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// How many bytes are there.
    pub fn len(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that are there.
    pub fn filled(&self) -> &[u8] {
        let len = self.len();
        // SAFETY: `len` bytes were written before they were published with `Release`, and are
        // never written again.
        unsafe { std::slice::from_raw_parts(self.memory.start().as_ptr().cast(), len) }
    }

    /// A slice of what is there, without a copy; it keeps the whole buffer alive and charged.
    ///
    /// # Panics
    /// When the range is not yet there: a defect of the caller.
    pub fn slice(self: &Arc<Self>, range: Range<usize>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice of missing bytes"
        );
        Bytes::from_owner(Slice {
            buffer: Some(self.clone()),
            range,
        })
    }
}

impl std::fmt::Debug for PieceBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PieceBuffer({}/{})", self.len(), self.capacity())
    }
}

struct Slice {
    /// `None` only while it is dropped.
    buffer: Option<Arc<PieceBuffer>>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        let buffer = self.buffer.as_ref();
        buffer.map_or(&[], |buffer| &buffer.filled()[self.range.clone()])
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else {
            return;
        };
        let budget = buffer.charge.as_ref().map(|charge| charge.budget().clone());
        drop(buffer);
        // A piece of which a socket holds a part is not evicted: now it may be.
        if let Some(budget) = budget {
            budget.nudge();
        }
    }
}

impl PieceWriter {
    /// The buffer it fills.
    pub fn buffer(&self) -> &Arc<PieceBuffer> {
        &self.buffer
    }

    /// How many bytes still fit.
    pub fn remaining(&self) -> usize {
        self.buffer.capacity() - self.position()
    }

    /// How many bytes were appended.
    pub fn position(&self) -> usize {
        // Only this writer stores to it.
        self.buffer.filled.load(Ordering::Relaxed)
    }

    /// Appends a copy of `bytes` and publishes it.
    ///
    /// # Panics
    /// When they don't fit: a defect of the caller.
    pub fn append(&mut self, bytes: &[u8]) {
        let at = self.position();
        assert!(
            bytes.len() <= self.buffer.capacity() - at,
            "piece buffer overrun"
        );
        // SAFETY: `at + bytes.len()` is within the allocation, and the bytes from `at` on are
        // unpublished, so that only this writer may touch them.
        unsafe {
            let to = self.buffer.memory.start().as_ptr().add(at).cast::<u8>();
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.publish(at + bytes.len());
    }

    fn publish(&mut self, filled: usize) {
        self.buffer.filled.store(filled, Ordering::Release);
    }
}

// SAFETY: `chunk_mut` is memory that only this writer touches, of exactly `remaining_mut` bytes, and
// `advance_mut` publishes only what lies within it.
unsafe impl BufMut for PieceWriter {
    fn remaining_mut(&self) -> usize {
        self.remaining()
    }

    unsafe fn advance_mut(&mut self, len: usize) {
        assert!(len <= self.remaining(), "piece buffer overrun");
        self.publish(self.position() + len);
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        let (at, len) = (self.position(), self.remaining());
        // SAFETY: in bounds, unpublished, and borrowed from the one writer.
        unsafe {
            UninitSlice::from_raw_parts_mut(self.buffer.memory.start().as_ptr().add(at).cast(), len)
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::Budget;

    #[test]
    fn readers_see_what_was_published_and_no_more() {
        let (buffer, mut writer) = PieceBuffer::create(Memory::new(8, None), None);
        writer.append(b"abc");
        let early = buffer.slice(0..3);
        writer.append(b"defgh");
        assert_eq!(
            (&early[..], buffer.filled()),
            (&b"abc"[..], &b"abcdefgh"[..])
        );
        assert_eq!(writer.remaining(), 0);
    }

    #[test]
    #[should_panic(expected = "missing bytes")]
    fn a_slice_of_missing_bytes_is_a_defect() {
        let (buffer, _writer) = PieceBuffer::create(Memory::new(8, None), None);
        buffer.slice(0..1);
    }

    #[test]
    fn a_slice_keeps_the_charge() {
        let budget = Budget::new(8);
        let (buffer, mut writer) = PieceBuffer::charged(budget.try_charge(8).unwrap());
        writer.append(b"abcd");
        let slice = buffer.slice(1..2);
        drop((buffer, writer));
        assert_eq!(budget.used(), 8, "a slow socket still holds it");
        drop(slice);
        assert_eq!(budget.used(), 0);
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;

    #[test]
    fn published_bytes_are_seen_whole() {
        loom::model(|| {
            let (buffer, mut writer) = PieceBuffer::create(Memory::new(4, None), None);
            let thread = loom::thread::spawn(move || {
                writer.append(b"ab");
                writer.append(b"cd");
            });
            let seen = buffer.filled().to_vec();
            assert!(b"abcd".starts_with(&seen) && seen.len() % 2 == 0);
            thread.join().unwrap();
            assert_eq!(buffer.filled(), b"abcd");
        });
    }
}
