//! The first bytes of a state body. See `docs/WIRE.md`.

use crate::delta::REFERENCES_MAX;
use crate::wire::bytes::{DecodeError, Reader};

/// Bodies of one snapshot, at most: their index has three bits.
pub(super) const BODIES_MAX: u8 = 8;

/// Epochs before their number repeats: two bits.
pub(super) const EPOCHS: u8 = 4;

/// References next to the base, as distances from it in snapshots; bit `n` of a set is the `n`-th.
pub(super) const REFERENCE_DISTANCES: [u32; 6] = [1, 2, 3, 4, 5, 6];

/// References next to the base, at most.
pub(super) const OTHERS_MAX: usize = 2;

/// References of a whole body, at most.
pub(super) const BODY_REFERENCES_MAX: usize = OTHERS_MAX + 1;

const _: () = assert!(BODY_REFERENCES_MAX <= REFERENCES_MAX);

/// Sets of references that need no byte of their own.
const COMMON_SETS: [u8; 3] = [0, 0b00_0001, 0b00_1001];

mod bit {
    pub(super) const EPOCH: u8 = 0b0000_0011;
    pub(super) const CONTENT_SHIFT: u8 = 2;
    pub(super) const CONTENT: u8 = 0b0000_1100;
    pub(super) const LAST: u8 = 0b0001_0000;
    pub(super) const INDEX_SHIFT: u8 = 5;
    pub(super) const AGE: u8 = 0b0011_1111;
    pub(super) const SET_SHIFT: u8 = 6;
}

/// What a body says about its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It equals the one that is `age` snapshots older.
    Same {
        /// Snapshots since, 1 to 63.
        age: u8,
    },
    /// Everything in a range of entities.
    Whole {
        /// Snapshots since the base; `None` without references.
        base: Option<u8>,
        /// Which of [`REFERENCE_DISTANCES`] are references too.
        others: u8,
    },
    /// Some entities.
    Part,
}

/// The first bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Number of the epoch, modulo [`EPOCHS`].
    pub(super) epoch: u8,
    /// Low bits of the snapshot's number.
    pub(super) number_low: u8,
    /// Which body of its snapshot this is.
    pub(super) index: u8,
    /// Whether with this and the bodies before it the snapshot is complete.
    pub(super) is_last: bool,
    /// What follows.
    pub(super) content: Content,
}

/// Bytes of a head, at most.
pub(super) const HEAD_BYTES_MAX: usize = 4;

/// Says in the first byte of a written body that it is the last of its snapshot.
pub(super) const fn mark_last(first: &mut u8) {
    *first |= bit::LAST;
}

impl Head {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let content: u8 = match self.content {
            Content::Same { .. } => 0,
            Content::Whole { .. } => 1,
            Content::Part => 2,
        };
        let last = if self.is_last { bit::LAST } else { 0 };
        out.push(
            self.epoch & bit::EPOCH
                | content << bit::CONTENT_SHIFT
                | last
                | self.index << bit::INDEX_SHIFT,
        );
        out.push(self.number_low);
        match self.content {
            Content::Same { age } => out.push(age),
            Content::Whole { base, others } => {
                let age = base.unwrap_or(0);
                let common = COMMON_SETS.iter().position(|&set| set == others);
                let code = common.and_then(|code| u8::try_from(code).ok()).unwrap_or(3);
                out.push(age | code << bit::SET_SHIFT);
                if code == 3 {
                    out.push(others);
                }
            }
            Content::Part => {}
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let first = reader.u8()?;
        let number_low = reader.u8()?;
        let index = first >> bit::INDEX_SHIFT;
        let is_last = first & bit::LAST != 0;
        let content = match (first & bit::CONTENT) >> bit::CONTENT_SHIFT {
            0 => {
                let age = reader.u8()?;
                if age == 0 || age & !bit::AGE != 0 {
                    return Err(DecodeError::Invalid("no snapshot is as old as that"));
                }
                if index != 0 || !is_last {
                    return Err(DecodeError::Invalid("an equal snapshot needs one body"));
                }
                Content::Same { age }
            }
            1 => whole(reader)?,
            2 => Content::Part,
            _ => return Err(DecodeError::Invalid("a body of an unknown kind")),
        };
        Ok(Self {
            epoch: first & bit::EPOCH,
            number_low,
            index,
            is_last,
            content,
        })
    }
}

fn whole(reader: &mut Reader<'_>) -> Result<Content, DecodeError> {
    let byte = reader.u8()?;
    let age = byte & bit::AGE;
    let code = usize::from(byte >> bit::SET_SHIFT);
    let others = match COMMON_SETS.get(code) {
        Some(&set) => set,
        None => {
            let set = reader.u8()?;
            if set > 0b11_1111
                || set.count_ones() as usize > OTHERS_MAX
                || COMMON_SETS.contains(&set)
            {
                return Err(DecodeError::Invalid("a set of references in a wrong form"));
            }
            set
        }
    };
    if age == 0 && others != 0 {
        return Err(DecodeError::Invalid("references without a base"));
    }
    Ok(Content::Whole {
        base: (age > 0).then_some(age),
        others,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_one_form() {
        let mut forms = Vec::new();
        for others in (0..64_u8).filter(|others| others.count_ones() <= 2) {
            forms.push(Content::Whole {
                base: Some(1 + others % 63),
                others,
            });
        }
        forms.push(Content::Whole {
            base: None,
            others: 0,
        });
        forms.push(Content::Same { age: 63 });
        forms.push(Content::Part);
        for content in forms {
            let head = Head {
                epoch: 2,
                number_low: 200,
                index: 0,
                is_last: true,
                content,
            };
            let mut bytes = Vec::new();
            head.write(&mut bytes);
            assert!(bytes.len() <= HEAD_BYTES_MAX);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Head::read(&mut reader), Ok(head));
            assert!(reader.is_empty());
        }
        let later = Head {
            epoch: 3,
            number_low: 0,
            index: 7,
            is_last: false,
            content: Content::Whole {
                base: Some(63),
                others: 0b10_0010,
            },
        };
        let mut bytes = Vec::new();
        later.write(&mut bytes);
        assert_eq!(bytes.len(), HEAD_BYTES_MAX);
        assert_eq!(Head::read(&mut Reader::new(&bytes)), Ok(later));
    }

    #[test]
    fn every_two_bytes_and_more_are_a_head_in_its_one_form_or_refused() {
        for first in 0..=u8::MAX {
            for third in 0..=u8::MAX {
                for fourth in [0, 1, 5, 8, 15, 16, 200] {
                    let bytes = [first, 9, third, fourth, 77];
                    let mut reader = Reader::new(&bytes);
                    let Ok(head) = Head::read(&mut reader) else {
                        continue;
                    };
                    let mut again = Vec::new();
                    head.write(&mut again);
                    assert_eq!(again, bytes[..bytes.len() - reader.len()]);
                }
            }
        }
    }
}
