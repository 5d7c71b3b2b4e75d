//! The reader's place among the states of a state-sync replay.

use std::io::{Read, Seek};

use super::{ReadError, Reader, undecodable};
use crate::delta::Tally;
use crate::replay::format::ChunkKind;
use crate::replay::states::{StateDecoder, States, exact_of};
use crate::session::config::Mode;
use crate::state::{QuantizedSnapshot, Shapes, Snapshot, WireLayout};
use crate::tick::Tick;

/// Where the reader is among the states.
#[derive(Debug)]
pub(super) struct StateCursor {
    decoder: StateDecoder,
    /// The chunk of the newest decoded state, by its place in the list, and how many states of it
    /// were decoded. `None` at the beginning and after an error.
    place: Option<(usize, States, usize)>,
}

impl<R: Read + Seek> Reader<R> {
    /// Goes to the newest state at `tick` or before, and gives its tick: in state-sync mode, else
    /// `None`. [`Reader::state`] is that state then. Going forward decodes each state once; going
    /// elsewhere decodes a run from its beginning, in bounded time.
    ///
    /// # Errors
    /// If there is no state so early, or what leads to it is damaged or missing. There is no state
    /// then, and a seek behind the damage may work.
    pub fn seek_state(&mut self, tick: Tick) -> Result<Option<Tick>, ReadError> {
        if self.header.mode != Mode::StateSync {
            return Ok(None);
        }
        let end = self
            .chunks
            .states
            .partition_point(|chunk| chunk.first <= tick);
        let Some(goal) = end.checked_sub(1) else {
            return Err(ReadError::NoKeyframe(tick));
        };
        let states = &self.chunks.states[..=goal];
        let begin = states
            .iter()
            .rposition(|chunk| chunk.kind == ChunkKind::States);
        let begin = begin.ok_or(ReadError::NoKeyframe(tick))?;
        let mut cursor = self.take_cursor();
        let newest = cursor.decoder.newest().map(|state| state.tick);
        let place = cursor.place.as_ref().map(|(chunk, _, _)| *chunk);
        let is_near = place.is_some_and(|chunk| chunk >= begin)
            && newest.is_some_and(|newest| newest <= tick);
        let entered = if is_near {
            Ok(())
        } else {
            self.enter(&mut cursor, begin)
        };
        let result = entered.and_then(|()| self.advance(&mut cursor, goal, tick));
        if result.is_err() {
            cursor.place = None;
        }
        let found = cursor.decoder.newest().map(|state| state.tick);
        self.states = Some(cursor);
        result.map(|()| found)
    }

    /// Goes to the state after the present one, or to the first; `None` at the end, where it stays.
    ///
    /// # Errors
    /// As [`Reader::seek_state`].
    pub fn next_state(&mut self) -> Result<Option<Tick>, ReadError> {
        let place = self.states.as_ref().and_then(|cursor| {
            let (chunk, states, next) = cursor.place.as_ref()?;
            Some((*chunk, states.tick(*next)))
        });
        let next = match place {
            None => self.chunks.states.first().map(|chunk| chunk.first),
            Some((_, Some(next))) => Some(next),
            Some((chunk, None)) => self.chunks.states.get(chunk + 1).map(|next| next.first),
        };
        match next {
            Some(next) => self.seek_state(next),
            None => Ok(None),
        }
    }

    /// The state that [`Reader::seek_state`] or [`Reader::next_state`] went to, with the table of
    /// its shapes and its layout.
    #[must_use]
    pub fn state(&self) -> Option<(&QuantizedSnapshot, &Shapes, &WireLayout)> {
        self.states.as_ref()?.place.as_ref()?;
        let (newest, shapes, layout) = self.state_tables()?;
        Some((newest?, shapes, layout))
    }

    /// What was decoded last, whether that is a place to go on from or not, with the tables of all
    /// states so far.
    pub(in crate::replay) fn state_tables(
        &self,
    ) -> Option<(Option<&QuantizedSnapshot>, &Shapes, &WireLayout)> {
        let decoder = &self.states.as_ref()?.decoder;
        Some((decoder.newest(), decoder.shapes(), decoder.layout()))
    }

    /// The combined hash of [`Reader::state`].
    #[must_use]
    pub fn state_hash(&self) -> Option<u64> {
        let (state, shapes, _layout) = self.state()?;
        Some(state.hash(shapes))
    }

    /// The exact form of [`Reader::state`]: kinds that clients do not get have no rows.
    #[must_use]
    pub fn exact_state(&self) -> Option<Snapshot> {
        let (state, shapes, layout) = self.state()?;
        exact_of(&self.header.schema, layout, shapes, state).ok()
    }

    fn take_cursor(&mut self) -> Box<StateCursor> {
        self.states.take().unwrap_or_else(|| {
            Box::new(StateCursor {
                decoder: StateDecoder::new(&self.header.schema),
                place: None,
            })
        })
    }

    /// Enters chunk number `at` of the states, decoding nothing of it.
    fn enter(&mut self, cursor: &mut StateCursor, at: usize) -> Result<(), ReadError> {
        let chunk = self.chunks.states[at];
        let before = cursor.decoder.newest().map(|state| state.tick);
        let bytes = self.load(&chunk)?;
        let states = States::decode(chunk.kind, bytes, chunk.first, chunk.last)
            .map_err(|error| undecodable(&chunk, error))?;
        match states.continues {
            None => cursor.decoder.begin_run(),
            Some(continues) if Some(continues) == before => {}
            Some(_) => {
                let before = at.checked_sub(1).and_then(|at| self.chunks.states.get(at));
                return Err(ReadError::Missing {
                    first: before.map_or(self.header.start, |before| before.last.next()),
                    last: chunk.first.previous(),
                });
            }
        }
        cursor.place = Some((at, states, 0));
        Ok(())
    }

    /// Decodes up to the newest state at `tick` or before, which is in chunk number `goal` or at
    /// the end of the one before.
    fn advance(
        &mut self,
        cursor: &mut StateCursor,
        goal: usize,
        tick: Tick,
    ) -> Result<(), ReadError> {
        while let Some((at, states, next)) = &mut cursor.place {
            match states.body(*next) {
                Some((found, _)) if found > tick => break,
                Some((found, body)) => {
                    let chunk = self.chunks.states[*at];
                    cursor
                        .decoder
                        .decode(found, body)
                        .map_err(|error| undecodable(&chunk, error))?;
                    *next += 1;
                }
                None if *at < goal => {
                    let at = *at + 1;
                    self.enter(cursor, at)?;
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Counts from here on where the bits of decoded states go, or stops to.
    pub(in crate::replay) fn inspect_states(&mut self, on: bool) {
        let mut cursor = self.take_cursor();
        cursor.decoder.inspect(on);
        cursor.place = None;
        self.states = Some(cursor);
    }

    /// Where the bits of states went.
    pub(in crate::replay) fn states_tally(&self) -> Option<&Tally> {
        self.states.as_ref()?.decoder.tally()
    }
}
