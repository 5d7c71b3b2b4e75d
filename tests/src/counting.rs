//! An allocator that counts, for tests of what allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts per thread. A test declares it as its global allocator.
#[derive(Debug)]
pub struct Counting;

#[expect(
    unsafe_code,
    reason = "a global allocator cannot be written without; every call goes to the system's as it \
              came, and the counter is a constant-initialised cell that allocates nothing itself"
)]
// SAFETY: the layout contracts are those of `System`, to which all calls go unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count() {
    // During the end of a thread there is nothing left to count.
    let _gone = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

/// Allocations of this thread so far, growth of existing ones included; none are counted unless
/// [`Counting`] is the global allocator.
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}
