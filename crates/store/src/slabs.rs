use std::{
    collections::{BTreeSet, VecDeque},
    mem::MaybeUninit,
    ptr::{self, NonNull},
    sync::Arc,
};

use crate::sync::{Mutex, Rank};

/// Memory for the pieces' usual sizes, in huge pages where the kernel has them.
///
/// A cache that fills up touches memory for the first time, and in pages of 4 KiB that costs a
/// peer more than hashing what it puts there. So pieces lie in slabs that the kernel may back by one
/// huge page each: two pieces of 1 MiB share a slab, larger ones have slabs of their own. What has
/// any other size (a content's tail) comes from the allocator.
///
/// A half that was given back stays so: the kernel is told not to back its slab by a huge page again as
/// long as its other half alone is used, which it does in the background otherwise, and then twice as much
/// is resident as anybody was charged for.
///
/// Invariant: what is resident here and belongs to no piece is at most [`HALVES_MAX`] halves and
/// [`IDLE_MAX`] bytes of slabs, whatever sizes came and went; the rest goes back to the kernel at
/// once. That much is kept because in a full cache one piece leaves for each that comes, and memory
/// that was touched just now costs nothing.
#[derive(Debug)]
pub(crate) struct Slabs {
    free: Mutex<Free>,
}

impl Default for Slabs {
    fn default() -> Self {
        let free = Mutex::new(Rank::Slabs, Free::default());
        Self { free }
    }
}

#[derive(Debug, Default)]
struct Free {
    /// Halves whose other half is in use, resident. The last one was used last.
    halves: VecDeque<usize>,
    /// Halves whose other half is in use, given back to the kernel.
    cold: BTreeSet<usize>,
    /// Slabs and runs of slabs that nobody uses, resident. The last one was used last.
    idle: VecDeque<Run>,
}

/// An address and how many bytes from there on.
#[derive(Debug, Clone, Copy)]
struct Run {
    at: usize,
    len: usize,
}

/// A huge page on x86-64 and, with 4 KiB pages, on arm64.
const SLAB: usize = 2 << 20;
const HALF: usize = SLAB / 2;
/// Resident halves that are kept.
const HALVES_MAX: usize = 4;
/// Bytes of resident slabs that are kept: one of the largest pieces.
const IDLE_MAX: usize = 4 << 20;

/// Memory of one piece, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    at: NonNull<MaybeUninit<u8>>,
    len: usize,
    /// Where it came from; `None`: from the allocator.
    slabs: Option<Arc<Slabs>>,
}

impl Memory {
    /// `len` bytes with nothing in particular in them.
    pub fn new(len: usize, slabs: Option<&Arc<Slabs>>) -> Self {
        if let Some(slabs) = slabs
            && let Some(at) = slabs.take(len)
        {
            return Self {
                at,
                len,
                slabs: Some(slabs.clone()),
            };
        }
        let memory = Box::into_raw(Box::<[u8]>::new_uninit_slice(len));
        Self {
            // SAFETY: a box's pointer is never null.
            at: unsafe { NonNull::new_unchecked(memory.cast()) },
            len,
            slabs: None,
        }
    }

    /// Its first byte.
    pub fn start(&self) -> NonNull<MaybeUninit<u8>> {
        self.at
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(slabs) = &self.slabs {
            slabs.give_back(self.at.as_ptr().expose_provenance(), self.len);
        } else {
            let slice = ptr::slice_from_raw_parts_mut(self.at.as_ptr(), self.len);
            // SAFETY: the pointer and length are the ones the box was made with, and nobody else
            // has them any more.
            drop(unsafe { Box::from_raw(slice) });
        }
    }
}

impl Slabs {
    /// Memory of exactly this length; `None` when such lengths don't come from slabs or the kernel
    /// has none.
    fn take(&self, len: usize) -> Option<NonNull<MaybeUninit<u8>>> {
        let at = match len {
            HALF => self.half()?,
            _ if len > 0 && len.is_multiple_of(SLAB) => self.whole(len)?,
            _ => return None,
        };
        NonNull::new(ptr::with_exposed_provenance_mut(at))
    }

    fn half(&self) -> Option<usize> {
        let mut free = self.free.lock();
        if let Some(half) = free.halves.pop_back() {
            return Some(half);
        }
        let slab = match free.idle_of(SLAB) {
            Some(slab) => slab,
            None => match free.cold.pop_first() {
                Some(half) => {
                    Run {
                        at: half,
                        len: HALF,
                    }
                    .warm();
                    return Some(half);
                }
                None => map(SLAB)?,
            },
        };
        free.halves.push_back(slab + HALF);
        Some(slab)
    }

    fn whole(&self, len: usize) -> Option<usize> {
        let kept = self.free.lock().idle_of(len);
        kept.or_else(|| map(len))
    }

    fn give_back(&self, at: usize, len: usize) {
        let mut free = self.free.lock();
        if len != HALF {
            return free.keep(Run { at, len });
        }
        let slab = Run {
            at: at & !(SLAB - 1),
            len: SLAB,
        };
        let other = at ^ HALF;
        if let Some(found) = free.halves.iter().position(|&half| half == other) {
            free.halves.remove(found);
            return free.keep(slab);
        }
        if free.cold.remove(&other) {
            return slab.unmap();
        }
        free.halves.push_back(at);
        if free.halves.len() > HALVES_MAX
            && let Some(oldest) = free.halves.pop_front()
        {
            Run {
                at: oldest,
                len: HALF,
            }
            .cool();
            free.cold.insert(oldest);
        }
    }
}

impl Free {
    /// The idle run of this length that was used last.
    fn idle_of(&mut self, len: usize) -> Option<usize> {
        let found = self.idle.iter().rposition(|run| run.len == len)?;
        self.idle.remove(found).map(|run| run.at)
    }

    /// Keeps a run that nobody uses, and lets go of the oldest ones beyond the bound.
    fn keep(&mut self, run: Run) {
        self.idle.push_back(run);
        let mut kept: usize = self.idle.iter().map(|run| run.len).sum();
        while kept > IDLE_MAX
            && let Some(oldest) = self.idle.pop_front()
        {
            kept -= oldest.len;
            oldest.unmap();
        }
    }
}

impl Drop for Free {
    fn drop(&mut self) {
        // Every piece holds the slabs it lies in: what is left are whole ones.
        debug_assert!(self.halves.is_empty() && self.cold.is_empty());
        self.idle.drain(..).for_each(Run::unmap);
    }
}

impl Run {
    /// Gives the pages back to the kernel for good; the addresses stay ours.
    fn cool(self) {
        // First that no huge page may come back, or one might in between.
        #[cfg(target_os = "linux")]
        self.advise(libc::MADV_NOHUGEPAGE);
        self.advise(libc::MADV_DONTNEED);
    }

    /// All of its slab is used: it may be a huge page again.
    fn warm(self) {
        #[cfg(target_os = "linux")]
        self.advise(libc::MADV_HUGEPAGE);
    }

    /// Tells the kernel how the pages are used. It may refuse: where huge pages are switched off, or when the
    /// process has too many mappings. Then there are small pages, or more of them.
    fn advise(self, advice: libc::c_int) {
        // SAFETY: the range is part of a mapping of ours, and where its bytes get lost no piece lies in it.
        unsafe { libc::madvise(self.pointer(), self.len, advice) };
    }

    fn unmap(self) {
        // SAFETY: the range is a mapping of ours, and no piece lies in it.
        let result = unsafe { libc::munmap(self.pointer(), self.len) };
        debug_assert_eq!(result, 0, "an address that was not mapped");
    }

    fn pointer(self) -> *mut libc::c_void {
        ptr::with_exposed_provenance_mut(self.at)
    }
}

/// Maps `len` bytes, a multiple of a slab, at an address that is one too.
fn map(len: usize) -> Option<usize> {
    // The kernel gives any page's address: as much more is mapped as may lie before the first
    // aligned one, and what is too much is given back.
    let mapped = len + SLAB;
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            mapped,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start = start.expose_provenance();
    let at = start.next_multiple_of(SLAB);
    for (from, to) in [(start, at), (at + len, start + mapped)] {
        if from < to {
            Run {
                at: from,
                len: to - from,
            }
            .unmap();
        }
    }
    Run { at, len }.warm();
    Some(at)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(memory: &Memory) -> usize {
        memory.start().as_ptr() as usize
    }

    /// Both ends of a piece: what lies over another's bytes lies over one of them.
    fn ends(memory: &Memory) -> [*mut [u8; 64]; 2] {
        let start = memory.start().as_ptr().cast::<u8>();
        [0, memory.len() - 64].map(|offset| start.wrapping_add(offset).cast())
    }

    fn mark(memory: &Memory, byte: u8) {
        for end in ends(memory) {
            // SAFETY: it lies within the piece, which nobody else uses.
            unsafe { end.write([byte; 64]) };
        }
    }

    fn is_marked(memory: &Memory, byte: u8) -> bool {
        // SAFETY: `mark` has written them.
        ends(memory).map(|end| unsafe { end.read() }) == [[byte; 64]; 2]
    }

    #[test]
    fn two_small_pieces_share_a_slab() {
        let slabs = Arc::default();
        let (a, b) = (
            Memory::new(HALF, Some(&slabs)),
            Memory::new(HALF, Some(&slabs)),
        );
        assert_eq!((at(&a) % SLAB, at(&b)), (0, at(&a) + HALF));
        let third = Memory::new(HALF, Some(&slabs));
        assert_ne!(at(&third) & !(SLAB - 1), at(&a));
    }

    #[test]
    fn what_was_used_just_now_is_used_again() {
        let slabs = Arc::default();
        for len in [HALF, SLAB, 2 * SLAB] {
            let first = Memory::new(len, Some(&slabs));
            let place = at(&first);
            drop(first);
            assert_eq!(at(&Memory::new(len, Some(&slabs))), place);
        }
    }

    /// What the kernel does in the background, at once. `false` when it did not.
    #[cfg(target_os = "linux")]
    fn collapse(slab: usize) -> bool {
        // Since Linux 6.1.
        const MADV_COLLAPSE: libc::c_int = 25;
        let at: *mut libc::c_void = ptr::with_exposed_provenance_mut(slab);
        // SAFETY: the range is a slab of ours; its bytes stay.
        unsafe { libc::madvise(at, SLAB, MADV_COLLAPSE) == 0 }
    }

    /// Resident bytes of a half.
    #[cfg(target_os = "linux")]
    fn resident(half: usize) -> usize {
        const PAGE: usize = 4 << 10;
        let mut pages = vec![0u8; HALF / PAGE];
        let at: *mut libc::c_void = ptr::with_exposed_provenance_mut(half);
        // SAFETY: the range is mapped, and there is a byte for each page.
        let result = unsafe { libc::mincore(at, HALF, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.iter().filter(|&page| page & 1 == 1).count() * PAGE
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_takes_no_cold_half_back() {
        let slabs: Arc<Slabs> = Arc::default();
        let new = || Memory::new(HALF, Some(&slabs));
        let mut pieces: Vec<Memory> = (0..4 * HALVES_MAX).map(|_| new()).collect();
        pieces.iter().for_each(|piece| mark(piece, 1));
        // Every other one goes, the first halves: more than are kept.
        let mut keep = false;
        pieces.retain(|_| {
            keep = !keep;
            !keep
        });
        let cold: Vec<usize> = slabs.free.lock().cold.iter().copied().collect();
        assert_eq!(cold.len(), HALVES_MAX);
        for &half in &cold {
            assert_eq!(resident(half), 0);
            collapse(half & !(SLAB - 1));
            assert_eq!(resident(half), 0, "nobody was charged for that");
        }
        // Used again, such a slab is as good as any.
        pieces.extend((0..2 * HALVES_MAX).map(|_| new()));
        pieces.iter().for_each(|piece| mark(piece, 2));
        assert!(slabs.free.lock().cold.is_empty());
    }

    #[test]
    fn tails_come_from_the_allocator() {
        let slabs = Arc::default();
        for len in [0, 1, HALF - 1, HALF + 1, SLAB + HALF] {
            let memory = Memory::new(len, Some(&slabs));
            assert!(memory.slabs.is_none() && memory.len() == len);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever comes and goes: no piece lies in another's memory, and what nobody uses is
        /// kept within the bound.
        #[test]
        fn pieces_keep_their_bytes_and_the_rest_is_given_back(
            steps in prop::collection::vec((0usize..3, any::<bool>(), any::<prop::sample::Index>()), 1..120)
        ) {
            let slabs: Arc<Slabs> = Arc::default();
            let mut used: Vec<(Memory, u8)> = Vec::new();
            for (byte, (size, take, which)) in (0u8..).zip(steps) {
                if take || used.is_empty() {
                    let memory = Memory::new([HALF, SLAB, 2 * SLAB][size], Some(&slabs));
                    mark(&memory, byte);
                    used.push((memory, byte));
                } else {
                    let (memory, byte) = used.swap_remove(which.index(used.len()));
                    prop_assert!(is_marked(&memory, byte));
                }
                let free = slabs.free.lock();
                prop_assert!(free.halves.len() <= HALVES_MAX);
                prop_assert!(free.idle.iter().map(|run| run.len).sum::<usize>() <= IDLE_MAX);
            }
            for (memory, byte) in used {
                prop_assert!(is_marked(&memory, byte));
            }
            let free = slabs.free.lock();
            prop_assert!(free.halves.is_empty() && free.cold.is_empty());
        }
    }
}
