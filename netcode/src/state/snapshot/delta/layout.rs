//! What the rows of a kind consist of, as words side by side.

use crate::hash::{canonical_f32_bits, canonical_f64_bits};
use crate::state::schema::Parts;
use crate::state::{ExactType, FieldSchema, KindSchema};
use crate::wire::bytes::DecodeError;

/// Words of a row, at most. Longer rows travel as bytes.
const WORDS_MAX: usize = 512;

/// A number in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Where it begins in the row.
    pub(super) at: usize,
    /// Its bytes: 1, 2, 4 or 8.
    pub(super) len: usize,
    pub(super) values: Values,
}

/// Which bit patterns are values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    All,
    Bool,
    F32,
    F64,
    /// An enum without fields: these tags, ascending.
    Tags(Vec<u8>),
}

impl Values {
    #[inline]
    pub(super) fn check(&self, word: u64) -> Result<(), DecodeError> {
        let is_value = match self {
            Self::All => true,
            Self::Bool => word <= 1,
            Self::F32 => u32::try_from(word)
                .is_ok_and(|bits| bits == canonical_f32_bits(f32::from_bits(bits))),
            Self::F64 => word == canonical_f64_bits(f64::from_bits(word)),
            Self::Tags(tags) => {
                u8::try_from(word).is_ok_and(|tag| tags.binary_search(&tag).is_ok())
            }
        };
        if is_value {
            Ok(())
        } else {
            Err(DecodeError::Invalid(
                "a delta leads to bits that are no value",
            ))
        }
    }
}

/// How the rows of a kind travel.
#[derive(Clone, Debug)]
pub(super) enum RowForm {
    /// All rows have `len` bytes, which are these words.
    Words {
        len: usize,
        words: Vec<Word>,
        /// Whether the words do not say it all: rows are checked as a whole, too.
        needs_check: bool,
    },
    /// Rows differ in length, or are long.
    Bytes,
}

impl RowForm {
    pub(super) fn of(kind: &KindSchema) -> Self {
        let Some(len) = kind.fixed_len() else {
            return Self::Bytes;
        };
        let mut rows = Rows::default();
        if rows.fields(&kind.fields).is_none() {
            return Self::Bytes;
        }
        debug_assert_eq!(rows.len, len, "the words are the row");
        Self::Words {
            len,
            words: rows.words,
            needs_check: rows.needs_check,
        }
    }
}

/// Collects the words of a row.
#[derive(Default)]
struct Rows {
    words: Vec<Word>,
    len: usize,
    needs_check: bool,
}

impl Rows {
    /// `None` if they are too many.
    fn push(&mut self, len: usize, values: Values) -> Option<()> {
        if self.words.len() == WORDS_MAX {
            return None;
        }
        let at = self.len;
        self.len += len;
        self.words.push(Word { at, len, values });
        Some(())
    }

    fn fields(&mut self, fields: &[FieldSchema]) -> Option<()> {
        fields.iter().try_for_each(|field| self.value(&field.exact))
    }

    fn value(&mut self, exact: &ExactType) -> Option<()> {
        match exact.parts() {
            Parts::Scalar => {
                let len = exact.fixed_len()?;
                let values = if *exact == ExactType::Bool {
                    Values::Bool
                } else if *exact == ExactType::F32 {
                    Values::F32
                } else if *exact == ExactType::F64 {
                    Values::F64
                } else {
                    Values::All
                };
                self.push(len, values)
            }
            Parts::Floats(names) => names.iter().try_for_each(|_| self.push(4, Values::F32)),
            Parts::Array(element, count) => (0..count).try_for_each(|_| self.value(element)),
            Parts::Struct(fields) => self.fields(fields),
            Parts::Enum(variants) => {
                let tags = variants.iter().map(|(tag, _, _)| *tag).collect();
                self.push(1, Values::Tags(tags))?;
                let fields = exact.fixed_len()? - 1;
                self.needs_check |= fields > 0;
                (0..fields).try_for_each(|_| self.push(1, Values::All))
            }
            Parts::Text | Parts::Option(_) | Parts::List(_) => None,
        }
    }
}
