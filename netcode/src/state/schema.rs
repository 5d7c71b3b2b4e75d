//! What a game's state consists of.

use crate::hash::digest;
use crate::limits::{FIELDS_MAX, KINDS_MAX};

use super::exact::Networked;

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

/// Whether a kind has one value per entity or one in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KindShape {
    /// Rows by NetId.
    Component,
    /// One row, with [`NetId::NONE`](crate::id::NetId::NONE).
    Resource,
}

/// The exact form of a value: how its bytes are laid out in snapshots, bit for bit.
///
/// Numbers are little-endian. The layout of a type is the concatenation of its parts, without
/// padding or alignment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExactType {
    /// One byte, 0 or 1.
    Bool,
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
    /// One byte.
    I8,
    /// Two bytes.
    I16,
    /// Four bytes.
    I32,
    /// Eight bytes.
    I64,
    /// Four bytes; every NaN is `0x7fc00000`.
    F32,
    /// Eight bytes; every NaN is `0x7ff8000000000000`.
    F64,
    /// Eight bytes: a reference to another entity.
    NetId,
    /// `2` x F32: x, y.
    Vec2,
    /// `3` x F32: x, y, z.
    Vec3,
    /// `4` x F32: x, y, z, w.
    Vec4,
    /// `4` x F32: x, y, z, w of a rotation.
    Quat,
    /// A fixed number of values of one type.
    Array(Box<ExactType>, u16),
    /// A byte that says whether a value follows: 0 or 1.
    Option(Box<ExactType>),
    /// A count (U32), then that many values.
    List(Box<ExactType>),
    /// A count of bytes (U32), then UTF-8.
    Text,
    /// Fields in order.
    Struct(Vec<FieldSchema>),
    /// A tag byte, then the fields of that variant. Variants are (tag, name, fields), by tag.
    Enum(Vec<(u8, String, Vec<FieldSchema>)>),
}

impl ExactType {
    /// Bytes of every value, where that does not depend on the value.
    #[must_use]
    pub fn fixed_len(&self) -> Option<usize> {
        match self {
            Self::Bool | Self::U8 | Self::I8 => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 | Self::NetId | Self::Vec2 => Some(8),
            Self::Vec3 => Some(12),
            Self::Vec4 | Self::Quat => Some(16),
            Self::Array(element, count) => element.fixed_len()?.checked_mul(usize::from(*count)),
            Self::Option(_) | Self::List(_) | Self::Text => None,
            Self::Struct(fields) => fixed_len_of(fields),
            Self::Enum(variants) => {
                let (_, _, first) = variants.first()?;
                let len = fixed_len_of(first)?;
                variants
                    .iter()
                    .all(|(_, _, fields)| fixed_len_of(fields) == Some(len))
                    .then(|| len.checked_add(1))?
            }
        }
    }
}

/// Bytes of the values of `fields` together, where that does not depend on the values.
#[must_use]
pub(super) fn fixed_len_of(fields: &[FieldSchema]) -> Option<usize> {
    fields.iter().try_fold(0_usize, |sum, field| {
        sum.checked_add(field.exact.fixed_len()?)
    })
}

/// One field of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FieldSchema {
    /// Its name in the source; `0`, `1` … in tuple structs.
    pub name: String,
    /// Its exact form.
    pub exact: ExactType,
    // The wire form for state-sync (bits, bounds, quantizer) belongs here.
}

impl FieldSchema {
    /// A field with this name and exact form.
    #[must_use]
    pub fn new(name: &str, exact: ExactType) -> Self {
        Self {
            name: name.to_owned(),
            exact,
        }
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
/// The digest covers names, versions, shapes, visibility and field layouts, and does not depend on
/// the order of registration.
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
    /// More than [`FIELDS_MAX`] fields in one kind.
    #[error("\"{0}\" has more than {FIELDS_MAX} fields")]
    TooManyFields(String),
}

impl Schema {
    /// A schema of these kinds, in any order.
    ///
    /// # Errors
    /// If names repeat or a limit is exceeded.
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
            if kind.fields.len() > FIELDS_MAX {
                return Err(SchemaError::TooManyFields(kind.name.clone()));
            }
        }
        let hash = digest(format!("{kinds:?}").as_bytes());
        Ok(Self { kinds, hash })
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
