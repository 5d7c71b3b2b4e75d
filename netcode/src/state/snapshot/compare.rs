//! How two states differ, down to the field.

use core::cmp::Ordering;
use core::fmt;

use crate::id::NetId;
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader};

use super::{ExactType, KindRows, KindSchema, Schema, Snapshot};
use crate::state::FieldSchema;
use crate::state::exact::list_count;
use crate::state::schema::Parts;
use crate::state::text::{row_text, value_text};
use crate::state::walk::{check, variant};

/// Longer texts of a value are cut around the first character that differs.
const TEXT_CHARS_MAX: usize = 120;
/// Characters that stay before the first one that differs.
const TEXT_CHARS_BEFORE: usize = 30;

/// One value in which two states differ.
///
/// Displays as `tick 120, entity 1.7, Unit.position.x: 1.5 here, 2.5 there`;
/// [`Difference::labelled`] has other words for the two sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The tick of the first state.
    pub tick: Tick,
    /// The entity; [`NetId::NONE`] for a resource.
    pub id: NetId,
    /// The kind; empty if one side lacks the whole entity.
    pub kind: String,
    /// The field, as `position.x` or `items[3].count`; empty if one side lacks the row.
    pub path: String,
    /// The value in the first state; `None` if it is missing.
    pub first: Option<String>,
    /// The value in the second state; `None` if it is missing.
    pub second: Option<String>,
}

impl Difference {
    /// Displays the difference with these words for the two states, for example `on the host` and
    /// `on member 3`.
    #[must_use]
    pub fn labelled<'a>(&'a self, first: &'a str, second: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            write!(f, "tick {}, ", self.tick)?;
            if self.id.is_none() {
                write!(f, "resource {}", self.kind)?;
            } else {
                write!(f, "entity {}", self.id)?;
                if !self.kind.is_empty() {
                    write!(f, ", {}", self.kind)?;
                }
            }
            if !self.path.is_empty() && !self.path.starts_with('[') {
                f.write_str(".")?;
            }
            let missing = "missing";
            write!(
                f,
                "{}: {} {first}, {} {second}",
                self.path,
                self.first.as_deref().unwrap_or(missing),
                self.second.as_deref().unwrap_or(missing),
            )
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.labelled("here", "there").fmt(f)
    }
}

impl Snapshot {
    /// In what `self`, the first state, differs from `other`, the second: at most `max` entries,
    /// resources first, then entity by entity. The ticks are not compared.
    ///
    /// Rows that are no values of their kind are shown in hexadecimal.
    #[must_use]
    pub fn differences(&self, other: &Self, schema: &Schema, max: usize) -> Vec<Difference> {
        let mut changed = Vec::new();
        for (index, kind) in schema.kinds().iter().enumerate() {
            let (Some(a), Some(b)) = (self.kinds.get(index), other.kinds.get(index)) else {
                break;
            };
            merge(a, b, |id, first, second| {
                if first != second {
                    changed.push(Changed {
                        id,
                        kind,
                        first,
                        second,
                    });
                }
            });
        }
        // Stable: the kinds of one entity stay in the order of the schema.
        changed.sort_by_key(|change| change.id);
        let mut search = Search {
            tick: self.tick,
            max,
            found: Vec::new(),
            id: NetId::NONE,
            kind: "",
            path: String::new(),
        };
        for group in changed.chunk_by(|a, b| a.id == b.id) {
            let id = group[0].id;
            search.id = id;
            search.path.clear();
            let (here, there) = (self.components_of(id), other.components_of(id));
            if !id.is_none() && (here == 0 || there == 0) {
                search.kind = "";
                let text = |count| (count > 0).then(|| counted(count, "component"));
                search.add(text(here), text(there));
            } else {
                group.iter().for_each(|change| search.change(change));
            }
            if search.is_full() {
                break;
            }
        }
        search.found
    }

    /// Number of kinds that have a row of `id`.
    fn components_of(&self, id: NetId) -> usize {
        let kinds = self.kinds.iter();
        kinds
            .filter(|rows| rows.ids.binary_search(&id).is_ok())
            .count()
    }
}

/// `1 element`, `2 elements`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Calls `visit` for every id in `a` or `b` with the rows, by id.
fn merge<'a>(
    a: &'a KindRows,
    b: &'a KindRows,
    mut visit: impl FnMut(NetId, Option<&'a [u8]>, Option<&'a [u8]>),
) {
    let (mut a, mut b) = (a.rows().peekable(), b.rows().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a_id, _)), Some((b_id, _))) => a_id.cmp(b_id),
        };
        let first = if order.is_le() { a.next() } else { None };
        let second = if order.is_ge() { b.next() } else { None };
        if let Some((id, _)) = first.or(second) {
            visit(id, first.map(|(_, row)| row), second.map(|(_, row)| row));
        }
    }
}

/// A row that differs.
struct Changed<'a> {
    id: NetId,
    kind: &'a KindSchema,
    first: Option<&'a [u8]>,
    second: Option<&'a [u8]>,
}

/// Collects differences; knows where it is.
struct Search<'a> {
    tick: Tick,
    max: usize,
    found: Vec<Difference>,
    id: NetId,
    kind: &'a str,
    path: String,
}

impl<'a> Search<'a> {
    fn is_full(&self) -> bool {
        self.found.len() >= self.max
    }

    fn add(&mut self, first: Option<String>, second: Option<String>) {
        if self.is_full() {
            return;
        }
        let (first, second) = match (first, second) {
            (Some(a), Some(b)) => {
                let start = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
                (Some(cut(&a, start)), Some(cut(&b, start)))
            }
            (first, second) => (first.map(|a| cut(&a, 0)), second.map(|b| cut(&b, 0))),
        };
        self.found.push(Difference {
            tick: self.tick,
            id: self.id,
            kind: self.kind.to_owned(),
            path: self.path.clone(),
            first,
            second,
        });
    }

    fn change(&mut self, change: &Changed<'a>) {
        self.kind = &change.kind.name;
        self.path.clear();
        let fields = &change.kind.fields;
        let text = |row: &[u8]| row_text(fields, row);
        let (Some(a), Some(b)) = (change.first, change.second) else {
            self.add(change.first.map(text), change.second.map(text));
            return;
        };
        let before = self.found.len();
        if self
            .fields(fields, &mut Reader::new(a), &mut Reader::new(b))
            .is_err()
        {
            self.found.truncate(before);
            self.path.clear();
            self.add(Some(text(a)), Some(text(b)));
        }
    }

    /// Compares the values of `fields`, which come next in both readers.
    fn fields(
        &mut self,
        fields: &[FieldSchema],
        first: &mut Reader<'_>,
        second: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        for field in fields {
            self.next_value(Step::Field(&field.name), &field.exact, first, second)?;
        }
        Ok(())
    }

    /// Compares values of type `exact`, which come next in both readers, one step down.
    fn next_value(
        &mut self,
        step: Step<'_>,
        exact: &ExactType,
        first: &mut Reader<'_>,
        second: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        let (a, b) = (take(exact, first)?, take(exact, second)?);
        if a != b && !self.is_full() {
            let len = self.path.len();
            step.push_to(&mut self.path);
            self.value(exact, a, b)?;
            self.path.truncate(len);
        }
        Ok(())
    }

    /// Compares two values of type `exact` that are known to differ.
    fn value(&mut self, exact: &ExactType, a: &[u8], b: &[u8]) -> Result<(), DecodeError> {
        let (mut first, mut second) = (Reader::new(a), Reader::new(b));
        match exact.parts() {
            Parts::Floats(names) => {
                for name in names {
                    let step = Step::Field(name);
                    self.next_value(step, &ExactType::F32, &mut first, &mut second)?;
                }
            }
            Parts::Array(element, count) => {
                self.elements(element, usize::from(count), &mut first, &mut second)?;
            }
            Parts::List(element) => {
                let (a_count, b_count) = (list_count(&mut first)?, list_count(&mut second)?);
                if a_count != b_count {
                    self.add(
                        Some(counted(a_count, "element")),
                        Some(counted(b_count, "element")),
                    );
                }
                self.elements(element, a_count.min(b_count), &mut first, &mut second)?;
            }
            Parts::Option(value) if a.first() == b.first() => {
                self.value(value, &a[1..], &b[1..])?;
            }
            Parts::Struct(fields) => self.fields(fields, &mut first, &mut second)?,
            Parts::Enum(variants) if a.first() == b.first() => {
                let (name, fields) = variant(variants, first.u8()?)?;
                second.u8()?;
                let len = self.path.len();
                Step::Field(name).push_to(&mut self.path);
                self.fields(fields, &mut first, &mut second)?;
                self.path.truncate(len);
            }
            Parts::Scalar | Parts::Option(_) | Parts::Text | Parts::Enum(_) => {
                let bits = float_bits(exact, a, b);
                let text = |value: &[u8]| Some(value_text(exact, value) + &bits(value));
                self.add(text(a), text(b));
            }
        }
        Ok(())
    }

    fn elements(
        &mut self,
        element: &ExactType,
        count: usize,
        first: &mut Reader<'_>,
        second: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        (0..count).try_for_each(|n| self.next_value(Step::Element(n), element, first, second))
    }
}

/// One step of a path.
enum Step<'a> {
    Field(&'a str),
    Element(usize),
}

impl Step<'_> {
    fn push_to(&self, path: &mut String) {
        match self {
            Self::Field(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Self::Element(index) => {
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
            }
        }
    }
}

/// Takes the bytes of one value.
fn take<'a>(exact: &ExactType, reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let start = reader.rest();
    check(exact, reader)?;
    Ok(&start[..start.len() - reader.len()])
}

/// What follows the text of a value: its bits, where both are floats that look alike, so that
/// nobody searches for the digit that differs.
fn float_bits(exact: &ExactType, a: &[u8], b: &[u8]) -> impl Fn(&[u8]) -> String {
    let float = |value: &[u8]| match (exact, value) {
        (ExactType::F32, &[a, b, c, d]) => Some(f64::from(f32::from_le_bytes([a, b, c, d]))),
        (ExactType::F64, value) => value.try_into().ok().map(f64::from_le_bytes),
        _ => None,
    };
    let alike = match (float(a), float(b)) {
        (Some(a), Some(b)) => a == b || format!("{a:.4e}") == format!("{b:.4e}"),
        _ => false,
    };
    move |value| {
        if !alike {
            return String::new();
        }
        let digits: String = value
            .iter()
            .rev()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(" (0x{digits})")
    }
}

/// At most [`TEXT_CHARS_MAX`] characters of `text`, from shortly before character `start`.
fn cut(text: &str, start: usize) -> String {
    if text.chars().count() <= TEXT_CHARS_MAX {
        return text.to_owned();
    }
    let skipped = if start + TEXT_CHARS_BEFORE > TEXT_CHARS_MAX {
        start - TEXT_CHARS_BEFORE
    } else {
        0
    };
    let mut short = String::new();
    if skipped > 0 {
        short.push('…');
    }
    let mut rest = text.chars().skip(skipped);
    short.extend(rest.by_ref().take(TEXT_CHARS_MAX));
    if rest.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
