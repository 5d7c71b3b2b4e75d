//! What a game's state consists of.

mod code;
mod compare;
mod exact_type;
mod parts;

pub use compare::SchemaDifference;
pub use exact_type::ExactType;
pub(super) use exact_type::is_tuple;
pub(super) use parts::Parts;

use core::fmt;
use core::hash::{Hash, Hasher};

use crate::hash::digest;
use crate::limits::{
    FIELDS_MAX, KINDS_MAX, NAME_BYTES_MAX, SCHEMA_BYTES_MAX, SNAPSHOT_BYTES_MAX, TYPE_DEPTH_MAX,
};

use super::exact::Networked;
use super::wire_form::{Interpolation, Prediction, Reason, WireForm, check_field, check_position};
use exact_type::{fixed_len_of, min_len_of};

/// Who may hold a kind's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// Everyone: hosts, clients, spectators.
    Client,
    /// Hosts and standbys; in lockstep everyone simulates, so everyone.
    HostOnly,
    /// Computed anew from other kinds after a restore; in hashes, not in snapshots.
    Derived,
    /// This process only: neither in hashes nor in snapshots.
    Local,
}

impl Visibility {
    /// Whether snapshots carry the values.
    #[must_use]
    pub const fn in_snapshots(self) -> bool {
        matches!(self, Self::Client | Self::HostOnly)
    }

    /// Whether state hashes cover the values. Other kinds hash as if they had no rows.
    #[must_use]
    pub const fn in_hashes(self) -> bool {
        !matches!(self, Self::Local)
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "Client",
            Self::HostOnly => "HostOnly",
            Self::Derived => "Derived",
            Self::Local => "Local",
        })
    }
}

/// Whether a kind has one value per entity or one in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KindShape {
    /// Rows by NetId.
    Component,
    /// One row, with [`NetId::NONE`](crate::id::NetId::NONE).
    Resource,
}

impl fmt::Display for KindShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component => "component",
            Self::Resource => "resource",
        })
    }
}

/// One field of a kind.
///
/// What it declares for the wire also holds for what is inside of its type: the parts of vectors,
/// arrays and options, and those fields of a struct or enum that declare no wire form of their own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FieldSchema {
    /// Its name in the source; `0`, `1` … in tuple structs.
    pub name: String,
    /// Its exact form.
    pub exact: ExactType,
    /// How state-sync clients get it.
    pub wire: WireForm,
    /// How the codec guesses its next value.
    pub prediction: Prediction,
    /// Whether it says where its entity is: for interest, and for what is near in the codec. At
    /// most one field of a kind, of type Vec2, Vec3, or an array of 2 or 3 numbers.
    pub is_position: bool,
    /// How clients show it between two snapshots. Presentation only: neither in the schema's bytes
    /// and hash nor compared by `==`.
    pub interpolation: Interpolation,
}

impl FieldSchema {
    /// A field with this name and exact form, which clients get without loss.
    #[must_use]
    pub fn new(name: &str, exact: ExactType) -> Self {
        Self {
            name: name.to_owned(),
            exact,
            wire: WireForm::default(),
            prediction: Prediction::default(),
            is_position: false,
            interpolation: Interpolation::default(),
        }
    }

    /// The same field with this wire form.
    #[must_use]
    pub fn wire(mut self, wire: WireForm) -> Self {
        self.wire = wire;
        self
    }

    /// The same field with this prediction.
    #[must_use]
    pub fn predicted(mut self, prediction: Prediction) -> Self {
        self.prediction = prediction;
        self
    }

    /// The same field as its entity's position.
    #[must_use]
    pub fn position(mut self) -> Self {
        self.is_position = true;
        self
    }

    /// The same field, shown like this between snapshots.
    #[must_use]
    pub fn interpolated(mut self, interpolation: Interpolation) -> Self {
        self.interpolation = interpolation;
        self
    }

    /// What two builds must agree on.
    fn contract(&self) -> (&str, &ExactType, WireForm, Prediction, bool) {
        (
            &self.name,
            &self.exact,
            self.wire,
            self.prediction,
            self.is_position,
        )
    }
}

impl PartialEq for FieldSchema {
    fn eq(&self, other: &Self) -> bool {
        self.contract() == other.contract()
    }
}

impl Eq for FieldSchema {}

impl Hash for FieldSchema {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.contract().hash(state);
    }
}

/// A registered component or resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KindSchema {
    /// Its name, unique in the schema and stable across builds.
    pub name: String,
    /// Raised by the game when the meaning changes and the layout does not.
    pub version: u16,
    /// One value per entity, or one in all.
    pub shape: KindShape,
    /// Who may hold it.
    pub visibility: Visibility,
    /// Its fields, in source order.
    pub fields: Vec<FieldSchema>,
}

impl KindSchema {
    /// The kind that `T` describes.
    #[must_use]
    pub fn of<T: Networked>(shape: KindShape) -> Self {
        Self {
            name: T::NAME.to_owned(),
            version: T::VERSION,
            shape,
            visibility: T::VISIBILITY,
            fields: T::fields(),
        }
    }

    /// Bytes of every row, where that does not depend on the value.
    #[must_use]
    pub fn fixed_len(&self) -> Option<usize> {
        fixed_len_of(&self.fields)
    }

    /// Bytes that every row takes at least.
    #[must_use]
    pub fn min_len(&self) -> usize {
        min_len_of(&self.fields)
    }

    /// Salt of the value hashes of this kind; see [`kind_salt`].
    #[must_use]
    pub fn salt(&self) -> u64 {
        kind_salt(&self.name)
    }
}

/// Salt of the value hashes of the kind with this name: equal values of two kinds hash
/// differently.
#[must_use]
pub fn kind_salt(name: &str) -> u64 {
    digest(name.as_bytes())
}

/// The registered kinds, sorted by name, with a digest that two builds compare.
///
/// The digest is that of the canonical bytes ([`Schema::encode`]): it covers names, versions,
/// shapes, visibility and field layouts, and does not depend on the order of registration.
///
/// # Invariants
/// Names are unique and without control characters, all limits of [`limits`](crate::limits) hold,
/// enums have variants with ascending tags, and elements of lists and arrays take a byte at
/// least, so that the bytes at hand bound every walk over a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    kinds: Vec<KindSchema>,
    hash: u64,
}

/// Why kinds do not make a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Two kinds have one name.
    #[error("two components or resources are registered as \"{0}\"; names must be unique")]
    DuplicateName(String),
    /// More than [`KINDS_MAX`] kinds.
    #[error("{0} components and resources are registered, at most {KINDS_MAX} fit")]
    TooManyKinds(usize),
    /// More than [`FIELDS_MAX`] fields and variants in one kind.
    #[error("\"{0}\" has more than {FIELDS_MAX} fields and enum variants")]
    TooManyFields(String),
    /// A name is empty, longer than [`NAME_BYTES_MAX`], or has control characters.
    #[error("the name {0:?} is empty, has more than {NAME_BYTES_MAX} bytes or control characters")]
    BadName(String),
    /// Types are nested deeper than [`TYPE_DEPTH_MAX`].
    #[error("a field of \"{0}\" is nested more than {TYPE_DEPTH_MAX} types deep")]
    TooDeep(String),
    /// A list or an array of values without bytes: nothing would bound their number.
    #[error("\"{0}\" has a list or an array of values that take no bytes")]
    EmptyElement(String),
    /// An enum without variants, or whose tags do not ascend.
    #[error("\"{0}\" has an enum without variants, or with tags that do not ascend")]
    BadEnum(String),
    /// A field declares for the wire what its type cannot have.
    #[error("field \"{field}\" of \"{kind}\": {reason}")]
    BadWire {
        /// The kind.
        kind: String,
        /// The field of the kind in which it is.
        field: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// No snapshot could hold a row.
    #[error("a row of \"{0}\" takes more than the {SNAPSHOT_BYTES_MAX} bytes of a snapshot")]
    RowTooLarge(String),
    /// The encoded schema exceeds [`SCHEMA_BYTES_MAX`].
    #[error("the schema takes {0} bytes, at most {SCHEMA_BYTES_MAX} fit")]
    TooLarge(usize),
}

impl Schema {
    /// A schema of these kinds, in any order.
    ///
    /// # Errors
    /// If names repeat, a limit is exceeded or a type has no bounded form.
    pub fn new(mut kinds: Vec<KindSchema>) -> Result<Self, SchemaError> {
        if kinds.len() > KINDS_MAX {
            return Err(SchemaError::TooManyKinds(kinds.len()));
        }
        kinds.sort_by(|a, b| a.name.cmp(&b.name));
        for pair in kinds.windows(2) {
            if pair[0].name == pair[1].name {
                return Err(SchemaError::DuplicateName(pair[0].name.clone()));
            }
        }
        for kind in &kinds {
            check_name(&kind.name)?;
            let mut check = KindCheck {
                kind: &kind.name,
                places: FIELDS_MAX,
            };
            check.fields(&kind.fields, TYPE_DEPTH_MAX)?;
            check_wire(kind)?;
            if kind.min_len() > SNAPSHOT_BYTES_MAX {
                return Err(SchemaError::RowTooLarge(kind.name.clone()));
            }
        }
        let mut schema = Self { kinds, hash: 0 };
        let mut bytes = Vec::new();
        schema.encode(&mut bytes);
        if bytes.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaError::TooLarge(bytes.len()));
        }
        schema.hash = digest(&bytes);
        Ok(schema)
    }

    /// The kinds, by name. A kind's index here is its number in snapshots and hashes.
    #[must_use]
    pub fn kinds(&self) -> &[KindSchema] {
        &self.kinds
    }

    /// The number of the kind with this name.
    #[must_use]
    pub fn kind_index(&self, name: &str) -> Option<usize> {
        self.kinds
            .binary_search_by(|kind| kind.name.as_str().cmp(name))
            .ok()
    }

    /// The digest.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Checks what a kind, whose types are checked, declares for the wire.
fn check_wire(kind: &KindSchema) -> Result<(), SchemaError> {
    let bad = |field: &FieldSchema, reason: Reason| SchemaError::BadWire {
        kind: kind.name.clone(),
        field: field.name.clone(),
        reason,
    };
    let mut positions = 0;
    for field in &kind.fields {
        check_field(field, WireForm::Exact)
            .and_then(|()| check_position(field))
            .map_err(|reason| bad(field, reason))?;
        positions += usize::from(field.is_position);
        if positions > 1 {
            return Err(bad(field, "a kind has two positions"));
        }
    }
    Ok(())
}

/// Checks the types of one kind.
struct KindCheck<'a> {
    kind: &'a str,
    /// Fields and variants that the kind may still have.
    places: usize,
}

impl KindCheck<'_> {
    /// Checks fields whose types may be nested `depth` deep.
    fn fields(&mut self, fields: &[FieldSchema], depth: usize) -> Result<(), SchemaError> {
        for field in fields {
            self.take_place(&field.name)?;
            self.exact(&field.exact, depth)?;
        }
        Ok(())
    }

    fn exact(&mut self, exact: &ExactType, depth: usize) -> Result<(), SchemaError> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| SchemaError::TooDeep(self.kind.to_owned()))?;
        match exact.parts() {
            Parts::Option(value) => self.exact(value, depth),
            // The depth is checked on the way down, so that `min_len` runs on checked types only.
            Parts::Array(element, _) | Parts::List(element) => {
                self.exact(element, depth)?;
                if element.min_len() == 0 {
                    return Err(SchemaError::EmptyElement(self.kind.to_owned()));
                }
                Ok(())
            }
            Parts::Struct(fields) => self.fields(fields, depth),
            Parts::Enum(variants) => {
                if variants.is_empty() || !variants.is_sorted_by(|a, b| a.0 < b.0) {
                    return Err(SchemaError::BadEnum(self.kind.to_owned()));
                }
                for (_, name, fields) in variants {
                    self.take_place(name)?;
                    self.fields(fields, depth)?;
                }
                Ok(())
            }
            Parts::Scalar | Parts::Floats(_) | Parts::Text => Ok(()),
        }
    }

    fn take_place(&mut self, name: &str) -> Result<(), SchemaError> {
        check_name(name)?;
        self.places = self
            .places
            .checked_sub(1)
            .ok_or_else(|| SchemaError::TooManyFields(self.kind.to_owned()))?;
        Ok(())
    }
}

/// Names stand in texts for people, also where they come from a hostile file.
fn check_name(name: &str) -> Result<(), SchemaError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(SchemaError::BadName(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::prng::Prng;

    /// A number below `bound`.
    pub(in crate::state) fn below(prng: &mut Prng, bound: usize) -> usize {
        usize::try_from(prng.below(bound as u64)).unwrap()
    }

    /// A random type; nested ones become rarer with the depth.
    pub(in crate::state) fn random_type(prng: &mut Prng, depth: usize) -> ExactType {
        let inner = |prng: &mut Prng| {
            Box::new(loop {
                let exact = random_type(prng, depth + 1);
                if exact.min_len() > 0 {
                    break exact;
                }
            })
        };
        match below(prng, if depth > 3 { 17 } else { 22 }) {
            0 => ExactType::Bool,
            1 => ExactType::U8,
            2 => ExactType::U16,
            3 => ExactType::U32,
            4 => ExactType::U64,
            5 => ExactType::I8,
            6 => ExactType::I16,
            7 => ExactType::I32,
            8 => ExactType::I64,
            9 => ExactType::F32,
            10 => ExactType::F64,
            11 => ExactType::NetId,
            12 => ExactType::Vec2,
            13 => ExactType::Vec3,
            14 => ExactType::Vec4,
            15 => ExactType::Quat,
            16 => ExactType::Text,
            17 => ExactType::Array(inner(prng), u16::try_from(prng.below(5)).unwrap()),
            18 => ExactType::Option(inner(prng)),
            19 => ExactType::List(inner(prng)),
            20 => ExactType::Struct(random_fields(prng, depth + 1)),
            _ => ExactType::Enum(
                (0..=below(prng, 3))
                    .map(|index| {
                        let tag = u8::try_from(index * 3).unwrap();
                        (tag, format!("V{tag}"), random_fields(prng, depth + 1))
                    })
                    .collect(),
            ),
        }
    }

    pub(in crate::state) fn random_fields(prng: &mut Prng, depth: usize) -> Vec<FieldSchema> {
        (0..below(prng, 4))
            .map(|index| FieldSchema::new(&format!("f{index}"), random_type(prng, depth)))
            .collect()
    }

    pub(in crate::state) fn random_schema(prng: &mut Prng) -> Schema {
        let kinds = (0..below(prng, 6))
            .map(|index| KindSchema {
                name: format!("Kind{index}"),
                version: u16::try_from(prng.below(3)).unwrap(),
                shape: if below(prng, 4) == 0 {
                    KindShape::Resource
                } else {
                    KindShape::Component
                },
                visibility: [
                    Visibility::Client,
                    Visibility::Client,
                    Visibility::HostOnly,
                    Visibility::Derived,
                    Visibility::Local,
                ][below(prng, 5)],
                fields: random_fields(prng, 0),
            })
            .collect();
        Schema::new(kinds).unwrap()
    }

    /// A `Client` component with these fields.
    pub(in crate::state) fn component(name: &str, fields: Vec<FieldSchema>) -> KindSchema {
        KindSchema {
            name: name.to_owned(),
            version: 1,
            shape: KindShape::Component,
            visibility: Visibility::Client,
            fields,
        }
    }

    fn with_type(exact: ExactType) -> Result<Schema, SchemaError> {
        Schema::new(vec![component("K", vec![FieldSchema::new("f", exact)])])
    }

    #[test]
    fn the_order_of_registration_does_not_matter() {
        let a = component("A", vec![FieldSchema::new("x", ExactType::U8)]);
        let b = component("B", vec![]);
        let schema = Schema::new(vec![a.clone(), b.clone()]).unwrap();
        assert_eq!(Schema::new(vec![b.clone(), a.clone()]).unwrap(), schema);
        assert_eq!(schema.kind_index("B"), Some(1));
        let newer = KindSchema {
            version: 2,
            ..b.clone()
        };
        assert_ne!(
            Schema::new(vec![a.clone(), newer]).unwrap().hash(),
            schema.hash()
        );
        assert_eq!(
            Schema::new(vec![a.clone(), a]),
            Err(SchemaError::DuplicateName("A".to_owned()))
        );
    }

    #[test]
    fn depth_is_limited() {
        let nested =
            |depth| (1..depth).fold(ExactType::U8, |exact, _| ExactType::Option(Box::new(exact)));
        assert!(with_type(nested(TYPE_DEPTH_MAX)).is_ok());
        assert_eq!(
            with_type(nested(TYPE_DEPTH_MAX + 1)),
            Err(SchemaError::TooDeep("K".to_owned()))
        );
    }

    #[test]
    fn types_without_bounds_are_refused() {
        let nothing = || Box::new(ExactType::Struct(vec![]));
        for empty in [
            ExactType::List(nothing()),
            ExactType::Array(nothing(), 7),
            ExactType::List(Box::new(ExactType::Array(Box::new(ExactType::U8), 0))),
        ] {
            assert_eq!(
                with_type(empty),
                Err(SchemaError::EmptyElement("K".to_owned()))
            );
        }
        let array = |element| ExactType::Array(Box::new(element), u16::MAX);
        assert_eq!(
            with_type(array(array(array(ExactType::U8)))),
            Err(SchemaError::RowTooLarge("K".to_owned()))
        );
        let variant = |tag| (tag, "V".to_owned(), vec![]);
        for variants in [vec![], vec![variant(1), variant(1)]] {
            assert_eq!(
                with_type(ExactType::Enum(variants)),
                Err(SchemaError::BadEnum("K".to_owned()))
            );
        }
    }

    #[test]
    fn fields_and_names_are_limited() {
        let fields = |count: usize| {
            (0..count)
                .map(|index| FieldSchema::new(&index.to_string(), ExactType::U8))
                .collect::<Vec<_>>()
        };
        assert!(Schema::new(vec![component("K", fields(FIELDS_MAX))]).is_ok());
        assert_eq!(
            Schema::new(vec![component("K", fields(FIELDS_MAX + 1))]),
            Err(SchemaError::TooManyFields("K".to_owned()))
        );
        for name in ["", "\u{1b}[2J", &"n".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(
                Schema::new(vec![component(name, vec![])]),
                Err(SchemaError::BadName(name.to_owned()))
            );
        }
    }
}
