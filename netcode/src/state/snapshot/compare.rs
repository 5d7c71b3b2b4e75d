//! How two states differ, down to the field.

use core::cmp::Ordering;
use core::fmt;

use crate::id::NetId;
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader};

use super::{ExactType, KindRows, KindSchema, Schema, Snapshot};
use crate::state::FieldSchema;
use crate::state::exact::list_count;
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
        match exact {
            ExactType::Vec2 | ExactType::Vec3 | ExactType::Vec4 | ExactType::Quat => {
                for name in ["x", "y", "z", "w"].iter().take(a.len() / 4) {
                    let step = Step::Field(name);
                    self.next_value(step, &ExactType::F32, &mut first, &mut second)?;
                }
            }
            ExactType::Array(element, count) => {
                self.elements(element, usize::from(*count), &mut first, &mut second)?;
            }
            ExactType::List(element) => {
                let (a_count, b_count) = (list_count(&mut first)?, list_count(&mut second)?);
                if a_count != b_count {
                    self.add(
                        Some(counted(a_count, "element")),
                        Some(counted(b_count, "element")),
                    );
                }
                self.elements(element, a_count.min(b_count), &mut first, &mut second)?;
            }
            ExactType::Option(value) if a.first() == b.first() => {
                self.value(value, &a[1..], &b[1..])?;
            }
            ExactType::Struct(fields) => self.fields(fields, &mut first, &mut second)?,
            ExactType::Enum(variants) if a.first() == b.first() => {
                let (name, fields) = variant(variants, first.u8()?)?;
                second.u8()?;
                let len = self.path.len();
                Step::Field(name).push_to(&mut self.path);
                self.fields(fields, &mut first, &mut second)?;
                self.path.truncate(len);
            }
            ExactType::Bool
            | ExactType::U8
            | ExactType::U16
            | ExactType::U32
            | ExactType::U64
            | ExactType::I8
            | ExactType::I16
            | ExactType::I32
            | ExactType::I64
            | ExactType::F32
            | ExactType::F64
            | ExactType::NetId
            | ExactType::Option(_)
            | ExactType::Text
            | ExactType::Enum(_) => {
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
mod tests {
    use super::super::tests::{random_row, random_snapshot};
    use super::*;
    use crate::prng::Prng;
    use crate::state::schema::tests::{below, component, random_schema};
    use crate::state::{Exact, KindShape};

    fn field(name: &str, exact: ExactType) -> FieldSchema {
        FieldSchema::new(name, exact)
    }

    fn list(element: ExactType) -> ExactType {
        ExactType::List(Box::new(element))
    }

    fn unit_schema() -> Schema {
        let order = ExactType::Enum(vec![
            (0, "Idle".to_owned(), vec![]),
            (1, "Move".to_owned(), vec![field("to", ExactType::Vec2)]),
        ]);
        let item = ExactType::Struct(vec![
            field("count", ExactType::U8),
            field("tags", list(ExactType::Text)),
        ]);
        let unit = component(
            "Unit",
            vec![
                field("position", ExactType::Vec3),
                field("order", ExactType::Option(Box::new(order))),
                field("items", list(item)),
            ],
        );
        let score = KindSchema {
            shape: KindShape::Resource,
            ..component(
                "Score",
                vec![field("0", ExactType::Array(Box::new(ExactType::U8), 2))],
            )
        };
        Schema::new(vec![unit, score, component("Marker", vec![])]).unwrap()
    }

    type Order = Option<Option<[f32; 2]>>;

    fn unit(position: [f32; 3], order: Order, items: &[(u8, &[&str])]) -> Vec<u8> {
        let mut row = Vec::new();
        position.write_exact(&mut row);
        match order {
            None => row.push(0),
            Some(None) => row.extend([1, 0]),
            Some(Some(to)) => {
                row.extend([1, 1]);
                to.write_exact(&mut row);
            }
        }
        let items: Vec<(u8, Vec<String>)> = items
            .iter()
            .map(|(count, tags)| (*count, tags.iter().map(|&tag| tag.to_owned()).collect()))
            .collect();
        items.write_exact(&mut row);
        row
    }

    /// A state of units, and of markers for the same entities.
    fn state(score: [u8; 2], units: &[(u64, Vec<u8>)]) -> Snapshot {
        let mut kinds = vec![KindRows::default(); 3];
        for (id, row) in units {
            kinds[0].push(NetId::from_bits(*id), |_| ());
            kinds[2].push(NetId::from_bits(*id), |out| out.extend_from_slice(row));
        }
        kinds[1].push(NetId::NONE, |out| out.extend(score));
        Snapshot {
            tick: Tick::new(120),
            kinds,
        }
    }

    fn lines(a: &Snapshot, b: &Snapshot) -> Vec<String> {
        let schema = unit_schema();
        assert_eq!(a.validate(&schema), Ok(()));
        assert_eq!(b.validate(&schema), Ok(()));
        let found = a.differences(b, &schema, 100);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fields_are_named_by_their_path() {
        let a = state(
            [1, 2],
            &[(
                7,
                unit(
                    [1.0, 2.0, 3.0],
                    Some(Some([1.0, 2.0])),
                    &[(1, &["a"]), (2, &["b", "c"])],
                ),
            )],
        );
        let b = state(
            [1, 3],
            &[(
                7,
                unit(
                    [1.0, 2.5, 3.0],
                    Some(Some([1.0, 4.0])),
                    &[(1, &["a"]), (9, &["b", "d"])],
                ),
            )],
        );
        assert_eq!(
            lines(&a, &b),
            [
                "tick 120, resource Score.0[1]: 2 here, 3 there",
                "tick 120, entity 0.7, Unit.position.y: 2.0 here, 2.5 there",
                "tick 120, entity 0.7, Unit.order.Move.to.y: 2.0 here, 4.0 there",
                "tick 120, entity 0.7, Unit.items[1].count: 2 here, 9 there",
                "tick 120, entity 0.7, Unit.items[1].tags[1]: \"c\" here, \"d\" there",
            ]
        );
        let schema = unit_schema();
        assert_eq!(a.differences(&a, &schema, 9), []);
        assert_eq!(a.differences(&b, &schema, 2).len(), 2);
        assert_eq!(
            a.differences(&b, &schema, 1)[0]
                .labelled("on the host", "on member 3")
                .to_string(),
            "tick 120, resource Score.0[1]: 2 on the host, 3 on member 3"
        );
    }

    #[test]
    fn alternatives_counts_and_absences_are_shown_whole() {
        let origin = [0.0; 3];
        let a = state(
            [1, 2],
            &[
                (1, unit(origin, None, &[])),
                (3, unit(origin, Some(Some([1.0, 2.0])), &[(1, &[])])),
                (4, unit(origin, Some(None), &[])),
            ],
        );
        let mut b = state(
            [1, 2],
            &[
                (2, unit(origin, None, &[])),
                (3, unit(origin, Some(None), &[(2, &[]), (1, &[])])),
                (4, unit(origin, None, &[])),
            ],
        );
        b.kinds[0].ids.pop();
        b.kinds[0].ends.pop();
        assert_eq!(
            lines(&a, &b),
            [
                "tick 120, entity 0.1: 2 components here, missing there",
                "tick 120, entity 0.2: missing here, 2 components there",
                "tick 120, entity 0.3, Unit.order: Move {to: (1.0, 2.0)} here, Idle there",
                "tick 120, entity 0.3, Unit.items: 1 element here, 2 elements there",
                "tick 120, entity 0.3, Unit.items[0].count: 1 here, 2 there",
                "tick 120, entity 0.4, Marker: {} here, missing there",
                "tick 120, entity 0.4, Unit.order: Some(Idle) here, None there",
            ]
        );
    }

    #[test]
    fn floats_that_look_alike_show_their_bits() {
        let at = |x: f32| state([0, 0], &[(1, unit([x, 0.0, 0.0], None, &[]))]);
        assert_eq!(
            lines(&at(1.0), &at(1.000_000_1)),
            ["tick 120, entity 0.1, Unit.position.x: \
                 1.0 (0x3f800000) here, 1.0000001 (0x3f800001) there"]
        );
        assert_eq!(
            lines(&at(0.0), &at(-0.0)),
            ["tick 120, entity 0.1, Unit.position.x: \
                 0.0 (0x00000000) here, -0.0 (0x80000000) there"]
        );
    }

    #[test]
    fn long_texts_are_cut_around_what_differs() {
        let long = "x".repeat(500);
        let (a, b) = (format!("{long}a{long}"), format!("{long}b{long}"));
        let of = |text: &str| state([0, 0], &[(1, unit([0.0; 3], None, &[(1, &[text])]))]);
        let [line] = &lines(&of(&a), &of(&b))[..] else {
            panic!("one difference");
        };
        assert!(line.contains("xa") && line.contains("xb"), "{line}");
        assert!(line.chars().count() < 320, "{line}");
    }

    #[test]
    fn states_differ_where_their_bytes_do() {
        for seed in 0..2000 {
            let mut prng = Prng::new(seed);
            let schema = random_schema(&mut prng);
            let a = random_snapshot(&schema, &mut prng);
            assert_eq!(a.differences(&a, &schema, 10), [], "seed {seed}");
            let b = Snapshot {
                tick: a.tick,
                ..random_snapshot(&schema, &mut prng)
            };
            let found = a.differences(&b, &schema, 10_000);
            assert_eq!(found.is_empty(), a == b, "seed {seed}");
            for difference in &found {
                assert_ne!(
                    difference.first, difference.second,
                    "seed {seed}: {difference}"
                );
            }
            assert_eq!(found.len(), b.differences(&a, &schema, 10_000).len());
        }
    }

    #[test]
    fn broken_snapshots_are_shown_without_a_panic() {
        for seed in 0..2000 {
            let mut prng = Prng::with_stream(seed, 2);
            let schema = random_schema(&mut prng);
            let a = random_snapshot(&schema, &mut prng);
            let mut b = a.clone();
            for (rows, kind) in b.kinds.iter_mut().zip(schema.kinds()) {
                match below(&mut prng, 4) {
                    0 => rows.bytes.truncate(below(&mut prng, rows.bytes.len() + 1)),
                    1 => rows.ends.reverse(),
                    2 => rows.bytes.extend(random_row(kind, &mut prng)),
                    _ => rows.bytes.fill(0xff),
                }
            }
            let mut text = String::new();
            b.write_text(&schema, &mut text).unwrap();
            assert!(text.starts_with("tick"), "seed {seed}");
            assert!(a.differences(&b, &schema, 50).len() <= 50, "seed {seed}");
            b.kinds.pop();
            assert!(b.differences(&a, &schema, 50).len() <= 50, "seed {seed}");
        }
    }
}
