//! What a client was sent, by what it says.

use crate::delta::Tally;

/// What one client was sent in bodies since someone looks; see
/// [`Publisher::set_tally`](super::Publisher::set_tally).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Bodies.
    pub bodies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where the bits of these bytes went: all of them, to the last one.
    pub tally: Tally,
    /// The same of keyframes that arrived. They travel by other means: their bytes are not in
    /// `bytes`.
    pub keyframes: Tally,
}

impl Ledger {
    /// A body of so many bytes went out, with a payload that `tally` counted.
    pub(super) fn note(&mut self, bytes: usize, tally: Option<&Tally>) {
        self.bodies += 1;
        self.bytes += bytes as u64;
        if let Some(tally) = tally {
            self.tally.add(tally);
        }
        self.tally.fill_up(self.bytes);
    }
}
