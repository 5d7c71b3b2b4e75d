//! Final input frames as one piece of bytes, for a member that lacks them.
//!
//! A piece stands alone: it begins after a tick that both ends hold, and its batch refers to nothing
//! before. It is what a vote brings to a candidate, and what an old host gives to the next one.
//!
//! Layout: term, the tick after which it begins and its last tick as varints; then an input batch
//! of all slots, with that last tick as its reference.

use crate::id::{Slot, Term};
use crate::input::{BatchDecoder, BatchEncoder, BatchPlan, InputHistory};
use crate::limits::INPUT_HISTORY_TICKS_MAX;
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader, put_varint};

/// Bytes before the batch, at most.
const HEAD_BYTES_MAX: usize = 15;

/// Why records were not written or not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// This node simulates nothing that input frames would bring forward.
    #[error("this node holds no input frames")]
    NoFrames,
    /// The tick to begin after is known no more, or not yet.
    #[error("the frames after that tick are not here")]
    Unknown,
    /// Not even one frame fits.
    #[error("not one frame fits the room")]
    NoRoom,
    /// They are of another term.
    #[error("the frames are of another term")]
    OtherTerm,
    /// They begin after a tick that is not here.
    #[error("the frames begin after a tick that is not here")]
    Gap,
    /// Their bytes mean nothing.
    #[error("the frames are malformed: {0}")]
    Malformed(#[from] DecodeError),
}

/// Appends the frames after `after`, up to `newest` or as far as `room` bytes reach, and says how
/// far that is.
///
/// # Errors
/// If those frames are not in `history`, or none fits.
pub fn write_records(
    term: Term,
    after: Tick,
    newest: Tick,
    history: &InputHistory,
    room: usize,
    out: &mut Vec<u8>,
) -> Result<Tick, RecordsError> {
    let slots = count(history);
    let is_known = (0..slots).all(|slot| history.oldest(Slot(slot)) <= after);
    if after > newest || !is_known {
        return Err(RecordsError::Unknown);
    }
    let room = room
        .checked_sub(HEAD_BYTES_MAX)
        .ok_or(RecordsError::NoRoom)?;
    let mut encoder = BatchEncoder::new(slots, size(history));
    (0..slots).for_each(|slot| encoder.start(Slot(slot), after));
    // The reference stands before the batch, and the batch must end there: as many ticks as fit.
    let mut batch = Vec::new();
    let mut upto = newest;
    loop {
        batch.clear();
        let plan = BatchPlan::new(mask(slots), upto);
        let span = encoder
            .encode(&plan, history, room, &mut batch)
            .map_err(|_error| RecordsError::NoRoom)?;
        if span.left_out == 0 {
            break;
        }
        upto = after.plus(span.ticks);
    }
    put_varint(out, u64::from(term.0));
    put_varint(out, u64::from(after.number()));
    put_varint(out, u64::from(upto.number()));
    out.extend_from_slice(&batch);
    Ok(upto)
}

/// Takes in frames that [`write_records`] wrote: what `history` lacks of them up to their last
/// tick. A slot that is further already keeps what it has.
///
/// # Errors
/// If they are of another term or do not connect to what is here, or their bytes mean nothing, or
/// contradict what is known. `history` is unchanged then.
pub fn read_records(
    term: Term,
    bytes: &[u8],
    newest_max: Tick,
    history: &mut InputHistory,
) -> Result<(), RecordsError> {
    let mut reader = Reader::new(bytes);
    let theirs = Term(reader.varint_u32()?);
    let after = Tick::new(reader.varint_u32()?);
    let upto = Tick::new(reader.varint_u32()?);
    if theirs != term {
        return Err(RecordsError::OtherTerm);
    }
    let slots = count(history);
    let connects = |slot| history.oldest(slot) <= after && after <= history.newest(slot);
    if upto < after || !(0..slots).map(Slot).all(connects) {
        return Err(RecordsError::Gap);
    }
    if upto > newest_max || upto.since(after) > INPUT_HISTORY_TICKS_MAX {
        return Err(DecodeError::Invalid("inputs are too far ahead").into());
    }
    let mut decoder = BatchDecoder::new(slots, size(history));
    (0..slots).for_each(|slot| decoder.start(Slot(slot), after));
    let plan = BatchPlan::new(mask(slots), upto);
    decoder.decode(&plan, upto, reader.rest(), history)?;
    Ok(())
}

fn count(history: &InputHistory) -> u8 {
    u8::try_from(history.slots()).unwrap_or(u8::MAX)
}

fn size(history: &InputHistory) -> u8 {
    u8::try_from(history.input_bytes()).unwrap_or(u8::MAX)
}

fn mask(slots: u8) -> u64 {
    (0..slots).fold(0, |mask, slot| mask | Slot(slot).bit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    const TERM: Term = Term(3);

    fn filled(seed: u64, from: u32, upto: u32) -> InputHistory {
        let mut history = InputHistory::new(3, 8);
        for slot in (0..3).map(Slot) {
            let mut prng = Prng::with_stream(seed, u64::from(slot.0));
            history.start(slot, Tick::new(from));
            for tick in from + 1..=upto {
                let input = prng.next_u32().to_le_bytes();
                let input = [input, input].concat();
                let is_there = prng.below(4) > 0;
                history.push(slot, Tick::new(tick), is_there.then_some(&input[..]));
            }
        }
        history
    }

    fn assert_same(a: &InputHistory, b: &InputHistory, upto: u32) {
        for slot in (0..3).map(Slot) {
            for tick in (1..=upto).map(Tick::new) {
                assert_eq!(a.get(slot, tick), b.get(slot, tick), "{slot:?} at {tick}");
            }
        }
    }

    #[test]
    fn pieces_bring_a_holder_of_an_older_position_forward() {
        let ours = filled(5, 0, 300);
        let mut theirs = filled(5, 0, 300);
        (0..3).for_each(|slot| theirs.rewind(Slot(slot), Tick::new(100)));
        // One slot is further than the rest, as where all wait for all.
        theirs.push(
            Slot(1),
            Tick::new(101),
            ours.get(Slot(1), Tick::new(101)).bytes(),
        );
        let (mut at, mut pieces) = (Tick::new(100), 0);
        while at < Tick::new(300) {
            let mut bytes = Vec::new();
            at = write_records(TERM, at, Tick::new(300), &ours, 900, &mut bytes).unwrap();
            assert!(bytes.len() <= 900, "{} B", bytes.len());
            read_records(TERM, &bytes, Tick::new(1000), &mut theirs).unwrap();
            assert_eq!(theirs.newest(Slot(0)), at);
            pieces += 1;
        }
        assert!(pieces > 2, "{pieces} pieces");
        assert_same(&ours, &theirs, 300);
    }

    #[test]
    fn what_does_not_connect_is_refused() {
        let ours = filled(6, 0, 40);
        let mut bytes = Vec::new();
        let end = Tick::new(40);
        let upto = write_records(TERM, Tick::new(20), end, &ours, 1100, &mut bytes).unwrap();
        assert_eq!(upto, end);
        let far = Tick::new(1000);
        let mut behind = filled(6, 0, 10);
        assert_eq!(
            read_records(TERM, &bytes, far, &mut behind),
            Err(RecordsError::Gap)
        );
        assert_same(&behind, &filled(6, 0, 10), 10);
        let mut theirs = filled(6, 0, 20);
        let other = read_records(Term(4), &bytes, far, &mut theirs);
        assert_eq!(other, Err(RecordsError::OtherTerm));
        let near = read_records(TERM, &bytes, Tick::new(30), &mut theirs);
        assert!(matches!(near, Err(RecordsError::Malformed(_))));
        let nothing = write_records(TERM, end, Tick::new(20), &ours, 1100, &mut bytes);
        assert_eq!(nothing, Err(RecordsError::Unknown));
        let small = write_records(TERM, Tick::new(20), end, &ours, 20, &mut bytes);
        assert_eq!(small, Err(RecordsError::NoRoom));
    }

    #[test]
    fn mutated_records_never_reach_beyond_their_limit() {
        let ours = filled(7, 0, 60);
        let mut sound = Vec::new();
        write_records(TERM, Tick::new(30), Tick::new(60), &ours, 1100, &mut sound).unwrap();
        for seed in 0..2_000 {
            let mut prng = Prng::with_stream(seed, 2);
            let mut bytes = sound.clone();
            for _ in 0..=prng.below(3) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] ^= 1 << prng.below(8);
            }
            bytes.truncate(bytes.len() - usize::try_from(prng.below(4)).unwrap());
            let mut theirs = filled(7, 0, 30);
            let _ = read_records(TERM, &bytes, Tick::new(90), &mut theirs);
            for slot in (0..3).map(Slot) {
                assert!(theirs.newest(slot) <= Tick::new(90), "seed {seed}");
            }
            assert_same(&ours, &theirs, 30);
        }
    }
}
