//! How two schemas differ, in words for a game's developer.

use core::cmp::Ordering;
use core::fmt;

use super::exact_type::{Declared, Fields};
use super::{ExactType, FieldSchema, KindSchema, KindShape, Schema};

/// Layouts of up to this many bytes of text, both together, are shown whole; larger ones are
/// searched for the fields that differ.
const WHOLE_TEXT_BYTES: usize = 120;

/// Longer texts of a layout are cut: they come from a peer, and go into logs.
const TEXT_BYTES_MAX: usize = 240;

/// One thing in which two schemas differ.
///
/// Displays as `component "Health": host v2 {hp: u16}, you v1 {hp: u8}`, the schema that
/// [`Schema::compare`] was called on being the host's; [`SchemaDifference::labelled`] has other
/// words for other pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaDifference {
    /// Whether it is about a component or a resource.
    pub shape: KindShape,
    /// The kind's name.
    pub kind: String,
    /// The field, as `order.Move.to`; empty where it is about the kind.
    pub field: String,
    /// What the first schema has; `None` if nothing.
    pub first: Option<String>,
    /// What the second schema has; `None` if nothing.
    pub second: Option<String>,
}

impl SchemaDifference {
    /// Displays the difference with these names for the first and the second schema, for example
    /// `the file` and `this build`.
    #[must_use]
    pub fn labelled<'a>(&'a self, first: &'a str, second: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            write!(f, "{} {:?}", self.shape, self.kind)?;
            if !self.field.is_empty() {
                write!(f, " field {:?}", self.field)?;
            }
            match (&self.first, &self.second) {
                (Some(of_first), Some(of_second)) => {
                    write!(f, ": {first} {of_first}, {second} {of_second}")
                }
                (Some(_), None) => write!(f, " is missing {}", place(second)),
                (None, Some(_)) => write!(f, " is missing {}", place(first)),
                (None, None) => Ok(()),
            }
        })
    }
}

impl fmt::Display for SchemaDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.labelled("host", "you").fmt(f)
    }
}

/// Where something is missing.
fn place(label: &str) -> String {
    match label {
        "you" => "here".to_owned(),
        "host" => "on the host".to_owned(),
        other => format!("in {other}"),
    }
}

impl Schema {
    /// All differences, by kind and field. `self` is the first schema, by default the host's;
    /// `other` is the second, by default one's own.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Vec<SchemaDifference> {
        let mut found = Vec::new();
        let (mut first, mut second) = (self.kinds.iter().peekable(), other.kinds.iter().peekable());
        loop {
            let order = match (first.peek(), second.peek()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.name.cmp(&b.name),
            };
            let (a, b) = match order {
                Ordering::Less => (first.next(), None),
                Ordering::Greater => (None, second.next()),
                Ordering::Equal => (first.next(), second.next()),
            };
            compare_kinds(a, b, &mut found);
        }
    }
}

/// Adds how kinds of one name differ; at least one is there.
fn compare_kinds(
    first: Option<&KindSchema>,
    second: Option<&KindSchema>,
    found: &mut Vec<SchemaDifference>,
) {
    let Some(any) = first.or(second) else {
        return;
    };
    let mut report = Report {
        shape: any.shape,
        kind: &any.name,
        found,
    };
    let (Some(a), Some(b)) = (first, second) else {
        report.add("", first.map(kind_text), second.map(kind_text));
        return;
    };
    if a == b {
        return;
    }
    if a.shape != b.shape {
        report.add(
            "",
            Some(format!("a {}", a.shape)),
            Some(format!("a {}", b.shape)),
        );
    }
    if a.visibility != b.visibility {
        let text = |kind: &KindSchema| Some(format!("visibility {}", kind.visibility));
        report.add("", text(a), text(b));
    }
    let (a_text, b_text) = (kind_text(a), kind_text(b));
    if a.fields == b.fields {
        if a.version != b.version {
            let text = |kind: &KindSchema| Some(format!("v{}", kind.version));
            report.add("", text(a), text(b));
        }
    } else if a_text.len() + b_text.len() <= WHOLE_TEXT_BYTES {
        report.add("", Some(a_text), Some(b_text));
    } else {
        if a.version != b.version {
            let text = |kind: &KindSchema| Some(format!("v{}", kind.version));
            report.add("", text(a), text(b));
        }
        report.fields("", &a.fields, &b.fields);
    }
}

/// Collects what is found in one kind.
struct Report<'a> {
    shape: KindShape,
    kind: &'a str,
    found: &'a mut Vec<SchemaDifference>,
}

impl Report<'_> {
    fn add(&mut self, field: &str, first: Option<String>, second: Option<String>) {
        self.found.push(SchemaDifference {
            shape: self.shape,
            kind: self.kind.to_owned(),
            field: field.to_owned(),
            first: first.map(cut),
            second: second.map(cut),
        });
    }

    /// Compares fields by name, then their order.
    fn fields(&mut self, path: &str, first: &[FieldSchema], second: &[FieldSchema]) {
        let before = self.found.len();
        for a in first {
            let path = join(path, &a.name);
            match second.iter().find(|b| b.name == a.name) {
                Some(b) => {
                    self.types(&path, &a.exact, &b.exact);
                    self.declared(&path, a, b);
                }
                None => self.add(&path, Some(a.exact.to_string()), None),
            }
        }
        for b in second {
            if first.iter().all(|a| a.name != b.name) {
                self.add(&join(path, &b.name), None, Some(b.exact.to_string()));
            }
        }
        if self.found.len() == before && first != second {
            let order = |fields: &[FieldSchema]| {
                let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
                Some(format!("has the order {}", names.join(", ")))
            };
            self.add(path, order(first), order(second));
        }
    }

    /// Compares what fields declare for the wire.
    fn declared(&mut self, path: &str, first: &FieldSchema, second: &FieldSchema) {
        let text = |field| {
            let text = Declared(field).to_string();
            let text = text.trim_start_matches([',', ' ']);
            Some(if text.is_empty() { "exact" } else { text }.to_owned())
        };
        let (first, second) = (text(first), text(second));
        if first != second {
            self.add(path, first, second);
        }
    }

    fn types(&mut self, path: &str, first: &ExactType, second: &ExactType) {
        if first == second {
            return;
        }
        match (first, second) {
            (ExactType::Struct(a), ExactType::Struct(b)) => self.fields(path, a, b),
            (ExactType::Enum(a), ExactType::Enum(b)) => self.variants(path, a, b),
            (ExactType::Option(a), ExactType::Option(b)) => self.types(path, a, b),
            (ExactType::List(a), ExactType::List(b)) => self.types(&format!("{path}[]"), a, b),
            (ExactType::Array(a, a_count), ExactType::Array(b, b_count)) if a_count == b_count => {
                self.types(&format!("{path}[]"), a, b);
            }
            _ => self.add(path, Some(first.to_string()), Some(second.to_string())),
        }
    }

    /// Compares the variants of enums by name.
    fn variants(&mut self, path: &str, first: &[Variant], second: &[Variant]) {
        for (tag, name, fields) in first {
            let path = join(path, name);
            match second.iter().find(|(_, other, _)| other == name) {
                Some((other_tag, _, other_fields)) => {
                    if tag != other_tag {
                        let text = |tag| Some(format!("tag {tag}"));
                        self.add(&path, text(tag), text(other_tag));
                    }
                    self.fields(&path, fields, other_fields);
                }
                None => self.add(&path, Some(Fields(fields).to_string()), None),
            }
        }
        for (_, name, fields) in second {
            if first.iter().all(|(_, other, _)| other != name) {
                self.add(&join(path, name), None, Some(Fields(fields).to_string()));
            }
        }
    }
}

/// A variant of an enum: tag, name, fields.
type Variant = (u8, String, Vec<FieldSchema>);

fn kind_text(kind: &KindSchema) -> String {
    format!("v{} {}", kind.version, Fields(&kind.fields))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::component;
    use super::super::{FieldSchema, Visibility};
    use super::*;

    fn field(name: &str, exact: ExactType) -> FieldSchema {
        FieldSchema::new(name, exact)
    }

    fn lines(host: Vec<KindSchema>, you: Vec<KindSchema>) -> Vec<String> {
        let host = Schema::new(host).unwrap();
        let you = Schema::new(you).unwrap();
        assert_eq!(host.compare(&host), []);
        assert_eq!(host.compare(&you).len(), you.compare(&host).len());
        host.compare(&you).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn small_kinds_are_shown_whole() {
        let host = KindSchema {
            version: 2,
            ..component("Health", vec![field("hp", ExactType::U16)])
        };
        let you = component("Health", vec![field("hp", ExactType::U8)]);
        let mana = component("Mana", vec![]);
        let rage = component("Rage", vec![]);
        assert_eq!(
            lines(vec![host, mana], vec![you, rage]),
            [
                "component \"Health\": host v2 {hp: u16}, you v1 {hp: u8}",
                "component \"Mana\" is missing here",
                "component \"Rage\" is missing on the host",
            ]
        );
    }

    #[test]
    fn what_a_kind_is_differs_too() {
        let client = component("A", vec![]);
        let hidden = KindSchema {
            visibility: Visibility::HostOnly,
            ..client.clone()
        };
        let resource = KindSchema {
            shape: KindShape::Resource,
            version: 3,
            ..client.clone()
        };
        assert_eq!(
            lines(vec![client.clone()], vec![hidden]),
            ["component \"A\": host visibility Client, you visibility HostOnly"]
        );
        assert_eq!(
            lines(vec![client], vec![resource]),
            [
                "component \"A\": host a component, you a resource",
                "component \"A\": host v1, you v3",
            ]
        );
    }

    /// A kind too large to be shown whole.
    fn unit(hp: ExactType, order: Vec<Variant>, item: Vec<FieldSchema>) -> KindSchema {
        component(
            "Unit",
            vec![
                field("position", ExactType::Vec3),
                field("rotation_of_the_turret", ExactType::Quat),
                field("hp", hp),
                field("order", ExactType::Option(Box::new(ExactType::Enum(order)))),
                field("items", ExactType::List(Box::new(ExactType::Struct(item)))),
            ],
        )
    }

    #[test]
    fn large_kinds_are_searched_down_to_the_field() {
        let variant = |tag, name: &str, fields| (tag, name.to_owned(), fields);
        let host = unit(
            ExactType::U16,
            vec![
                variant(0, "Idle", vec![]),
                variant(1, "Move", vec![field("to", ExactType::Vec2)]),
                variant(2, "Flee", vec![]),
            ],
            vec![
                field("name", ExactType::Text),
                field("count", ExactType::U8),
            ],
        );
        let you = unit(
            ExactType::F32,
            vec![
                variant(0, "Idle", vec![]),
                variant(2, "Move", vec![field("to", ExactType::Vec3)]),
            ],
            vec![
                field("count", ExactType::U8),
                field("name", ExactType::Text),
            ],
        );
        assert_eq!(
            lines(vec![host], vec![you]),
            [
                "component \"Unit\" field \"hp\": host u16, you f32",
                "component \"Unit\" field \"order.Move\": host tag 1, you tag 2",
                "component \"Unit\" field \"order.Move.to\": host Vec2, you Vec3",
                "component \"Unit\" field \"order.Flee\" is missing here",
                "component \"Unit\" field \"items[]\": host has the order name, count, \
                 you has the order count, name",
            ]
        );
    }

    #[test]
    fn wire_forms_differ_too() {
        use super::super::{Interpolation, Prediction, WireForm};
        let metres = |max: i32| WireForm::Fixed {
            min: -max,
            max,
            per_unit: 512,
        };
        let at = |max| field("at", ExactType::Vec2).wire(metres(max)).position();
        let host = component("At", vec![at(32)]);
        let you = component("At", vec![at(64).interpolated(Interpolation::Step)]);
        assert_eq!(
            lines(vec![host], vec![you.clone()]),
            [
                "component \"At\": host v1 {at: Vec2 as -32..=32 by 1/512, position}, \
              you v1 {at: Vec2 as -64..=64 by 1/512, position}"
            ]
        );
        let shown = component("At", vec![at(64)]);
        assert_eq!(
            lines(vec![you], vec![shown]),
            [""; 0],
            "how it is shown is no contract"
        );

        let large = |wire, prediction| {
            let mut kind = unit(
                ExactType::U16,
                vec![(0, "A".to_owned(), vec![])],
                vec![
                    field("name", ExactType::Text),
                    field("count", ExactType::U8),
                ],
            );
            kind.fields[2] = kind.fields[2].clone().wire(wire).predicted(prediction);
            kind
        };
        let range = WireForm::Range { min: 0, max: 100 };
        assert_eq!(
            lines(
                vec![large(range, Prediction::Course)],
                vec![large(WireForm::Exact, Prediction::Last)]
            ),
            ["component \"Unit\" field \"hp\": host as 0..=100, you predicted as last"]
        );
    }

    #[test]
    fn labels_can_be_chosen() {
        let file = Schema::new(vec![component("A", vec![])]).unwrap();
        let build = Schema::new(vec![component("A", vec![field("x", ExactType::U8)])]).unwrap();
        let [difference] = &file.compare(&build)[..] else {
            panic!("one difference");
        };
        assert_eq!(
            difference.labelled("file", "this build").to_string(),
            "component \"A\": file v1 {}, this build v1 {x: u8}"
        );
        let [missing] = &file.compare(&Schema::new(vec![]).unwrap())[..] else {
            panic!("one difference");
        };
        assert_eq!(
            missing.labelled("the file", "this build").to_string(),
            "component \"A\" is missing in this build"
        );
    }
}
