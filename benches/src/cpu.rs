//! CPU time of threads, as the Linux kernel counts it.
//!
//! `/proc/self/task/<id>/schedstat` begins with the nanoseconds that a thread has run. The figure of
//! a running thread may be one scheduler tick (1 to 10 ms) old, so measure over seconds.

use std::fs;

/// CPU time in nanoseconds of all threads of this process whose name begins with `name` (Linux
/// keeps 15 bytes of it); `None` where the system does not tell.
#[must_use]
pub fn thread_ns(name: &str) -> Option<u64> {
    let mut total = None;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let task = task.ok()?.path();
        // A thread may end between the listing and the reading.
        let Ok(comm) = fs::read_to_string(task.join("comm")) else {
            continue;
        };
        if comm.starts_with(name) {
            let stat = fs::read_to_string(task.join("schedstat")).ok()?;
            let ns: u64 = stat.split_whitespace().next()?.parse().ok()?;
            *total.get_or_insert(0) += ns;
        }
    }
    total
}
