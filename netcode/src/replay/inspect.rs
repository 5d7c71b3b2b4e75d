//! Where the bytes of recorded states go.

use std::io::{Read, Seek};

use super::reader::{ReadError, Reader};
use crate::delta::{Breakdown, Tally};
use crate::tick::Tick;

impl<R: Read + Seek> Reader<R> {
    /// Bits per kind and field of all recorded states: decodes each and codes it once more. A
    /// lockstep replay has no states, and its table no rows. `progress` is called now and then with
    /// the tick that was reached and the last one.
    ///
    /// # Errors
    /// At the first damage.
    pub fn breakdown(
        &mut self,
        mut progress: impl FnMut(Tick, Tick),
    ) -> Result<Breakdown, ReadError> {
        self.inspect_states(true);
        let result = self.decode_all(&mut progress);
        let empty = Tally::default();
        let tally = self.states_tally().unwrap_or(&empty);
        let breakdown = result.map(|states| Breakdown::new(tally, &self.header().schema, states));
        self.inspect_states(false);
        breakdown
    }

    fn decode_all(&mut self, progress: &mut impl FnMut(Tick, Tick)) -> Result<u64, ReadError> {
        let last = self.last_tick();
        let mut states = 0;
        while let Some(tick) = self.next_state()? {
            states += 1;
            if states % 200 == 0 {
                progress(tick, last);
            }
        }
        progress(last, last);
        Ok(states)
    }
}
