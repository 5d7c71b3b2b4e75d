//! What acted in the slot of a member lately, for one that goes on with another host.
//!
//! A member knows what it submitted, and is told by its host where something else acted instead; what
//! the old host said of that last may be lost with its link. So the new host repeats what acted, as far
//! back as it fits. Where a member was silent the same input acted again and again: equal inputs in a
//! row cost no more than one.

use crate::id::Slot;
use crate::input::InputHistory;
use crate::limits::INPUT_HISTORY_TICKS_MAX;
use crate::tick::Tick;
use crate::wire::codec::{Decode, Encode};

/// Bytes that one tells at most, before coding.
const BYTES_MAX: usize = 640;

/// Bytes of a run beside its input, at most.
const RUN_BYTES: usize = 4;

/// What acted in a slot in some ticks in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Acted {
    /// The first tick.
    pub first: u32,
    /// The ticks from there, without a gap.
    pub runs: Vec<Run>,
    /// The inputs of the runs in which the slot was present, one after the other.
    pub inputs: Vec<u8>,
}

/// Ticks in a row of which the same is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    /// How many.
    pub ticks: u16,
    /// Whether the slot was present: then one input acted on all of them.
    pub is_present: bool,
}

impl Acted {
    /// What acted in `slot` in the newest ticks, as many as fit.
    pub(crate) fn newest(known: &InputHistory, slot: Slot) -> Self {
        let (oldest, newest) = (known.oldest(slot), known.newest(slot));
        let mut runs: Vec<(u16, Option<&[u8]>)> = Vec::new();
        let (mut first, mut bytes) = (newest.next(), 0);
        while first > oldest.next() {
            let tick = first.previous();
            let input = known.get(slot, tick).bytes();
            match runs.last_mut() {
                Some((ticks, same)) if *same == input && *ticks < u16::MAX => *ticks += 1,
                _ => {
                    bytes += RUN_BYTES + input.map_or(0, <[u8]>::len);
                    if bytes > BYTES_MAX {
                        break;
                    }
                    runs.push((1, input));
                }
            }
            first = tick;
        }
        let mut acted = Self {
            first: first.number(),
            ..Self::default()
        };
        for (ticks, input) in runs.into_iter().rev() {
            let is_present = input.is_some();
            acted.runs.push(Run { ticks, is_present });
            acted.inputs.extend_from_slice(input.unwrap_or_default());
        }
        acted
    }

    /// The ticks, each with the input that acted, `None` where the slot was absent. Runs that another
    /// node made up end where its inputs do, and beyond what anybody remembers.
    pub(crate) fn ticks(&self, input_bytes: u8) -> impl Iterator<Item = (Tick, Option<&[u8]>)> {
        let mut inputs = self.inputs.chunks_exact(usize::from(input_bytes).max(1));
        let mut broken = false;
        let runs = self.runs.iter().map_while(move |run| {
            let input = run.is_present.then(|| inputs.next());
            broken |= input == Some(None);
            (!broken).then_some((run.ticks, input.flatten()))
        });
        let each = runs.flat_map(|(ticks, input)| core::iter::repeat_n(input, usize::from(ticks)));
        let numbers = (0..INPUT_HISTORY_TICKS_MAX).map_while(|at| self.first.checked_add(at));
        numbers.map(Tick::new).zip(each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    const SLOT: Slot = Slot(0);

    fn filled(inputs: &[Option<[u8; 4]>]) -> InputHistory {
        let mut history = InputHistory::new(1, 4);
        for (number, input) in (1..).zip(inputs) {
            history.push(SLOT, Tick::new(number), input.as_ref().map(|it| &it[..]));
        }
        history
    }

    #[test]
    fn what_is_told_is_what_acted_as_far_back_as_it_fits() {
        for seed in 0..50 {
            let mut prng = Prng::new(seed);
            let mut input = Some([0; 4]);
            let changes = 1 + prng.below(100);
            let inputs: Vec<_> = (0..1 + prng.below(900))
                .map(|_| {
                    if prng.below(changes) == 0 {
                        let bits = prng.next_u32().to_le_bytes();
                        input = (prng.below(4) > 0).then_some(bits);
                    }
                    input
                })
                .collect();
            let acted = Acted::newest(&filled(&inputs), SLOT);
            let told: Vec<_> = acted.ticks(4).collect();
            let first = acted.first as usize;
            assert_eq!(told.len(), inputs.len() + 1 - first, "seed {seed}");
            for (tick, input) in &told {
                let there = inputs[tick.number() as usize - 1];
                assert_eq!(*input, there.as_ref().map(|it| &it[..]), "seed {seed}");
            }
            let bytes = acted.inputs.len() + RUN_BYTES * acted.runs.len();
            assert!(bytes <= BYTES_MAX, "seed {seed}: {bytes}");
            let is_all = first == 1;
            assert!(is_all || bytes + 4 + RUN_BYTES > BYTES_MAX, "seed {seed}");
        }
    }

    #[test]
    fn a_silent_member_is_told_of_all_that_anybody_remembers() {
        let inputs = vec![Some([7; 4]); 1000];
        let acted = Acted::newest(&filled(&inputs), SLOT);
        assert_eq!(acted.runs.len(), 1);
        assert_eq!(acted.ticks(4).count(), 1000);
    }

    #[test]
    fn runs_that_mean_nothing_end() {
        let run = |ticks, is_present| Run { ticks, is_present };
        let endless = Acted {
            first: u32::MAX - 2,
            runs: vec![run(u16::MAX, false); 9],
            inputs: Vec::new(),
        };
        assert_eq!(endless.ticks(4).count(), 3);
        let long = Acted {
            first: 1,
            ..endless
        };
        let limit = INPUT_HISTORY_TICKS_MAX as usize;
        assert_eq!(long.ticks(4).count(), limit);
        let broken = Acted {
            first: 1,
            runs: vec![run(2, true), run(3, true), run(4, false)],
            inputs: vec![1, 2, 3, 4, 5],
        };
        assert_eq!(broken.ticks(4).count(), 2);
    }
}
