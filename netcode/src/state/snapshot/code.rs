//! The canonical bytes of a snapshot: for joins, keyframes and files.
//!
//! | part | form |
//! |---|---|
//! | form | u8: 1 |
//! | schema | u64: [`Schema::hash`] |
//! | tick | u32 |
//! | kinds | per kind of the schema that is `Client` or `HostOnly`, in its order: count, ids, columns |
//! | count | varint: rows |
//! | ids | components only: the first id, then each id's distance to the one before less 1 (varints) |
//! | columns | per field of the kind, in its order |
//! | column | fixed length L: byte 0 of every row, then byte 1 … to byte L - 1; other: the values, one after the other |
//!
//! Values of one field resemble each other from row to row, their high bytes most of all; side by
//! side they compress far better than rows do. The bytes are not compressed themselves, since
//! compressed bytes would not be canonical; [`Snapshot::compress`] does it on top.

use crate::id::NetId;
use crate::limits::{ENTITIES_MAX, SNAPSHOT_BYTES_MAX};
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader, put_varint};
use crate::wire::compress::{compress, decompress};

use super::{ExactType, KindRows, KindSchema, KindShape, Schema, Snapshot, memory_per_row};
use crate::state::walk::{check, check_fields};

/// Version of this form.
const FORM: u8 = 1;

impl Snapshot {
    /// Appends the canonical bytes.
    ///
    /// # Panics
    /// If this is not a snapshot of `schema`; [`Snapshot::validate`] tells.
    pub fn encode(&self, schema: &Schema, out: &mut Vec<u8>) {
        assert_eq!(
            self.kinds.len(),
            schema.kinds().len(),
            "a snapshot has the kinds of its schema"
        );
        out.push(FORM);
        out.extend_from_slice(&schema.hash().to_le_bytes());
        out.extend_from_slice(&self.tick.number().to_le_bytes());
        for (rows, kind) in self.kinds.iter().zip(schema.kinds()) {
            if kind.visibility.in_snapshots() {
                put_rows(out, rows, kind);
            }
        }
    }

    /// Reads a snapshot; `bytes` are exactly one.
    ///
    /// # Errors
    /// If it is of another schema, ends too early or too late, is not canonical, exceeds a limit,
    /// or a row is not a value of its kind. Counts are checked before anything is allocated.
    pub fn decode(bytes: &[u8], schema: &Schema) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let tick = read_header(&mut reader, schema)?;
        let mut budget = SNAPSHOT_BYTES_MAX;
        let mut kinds = Vec::with_capacity(schema.kinds().len());
        for kind in schema.kinds() {
            kinds.push(if kind.visibility.in_snapshots() {
                read_rows(&mut reader, kind, &mut budget)?
            } else {
                KindRows::default()
            });
        }
        reader.finish()?;
        Ok(Self { tick, kinds })
    }

    /// Appends the canonical bytes in compressed form.
    ///
    /// # Panics
    /// As [`Snapshot::encode`].
    pub fn compress(&self, schema: &Schema, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        self.encode(schema, &mut bytes);
        compress(&bytes, out);
    }

    /// Reads what [`Snapshot::compress`] wrote; `bytes` are exactly that.
    ///
    /// # Errors
    /// As [`Snapshot::decode`] and [`decompress`].
    pub fn decompress(bytes: &[u8], schema: &Schema) -> Result<Self, DecodeError> {
        Self::decode(&decompress(bytes, SNAPSHOT_BYTES_MAX)?, schema)
    }
}

fn read_header(reader: &mut Reader<'_>, schema: &Schema) -> Result<Tick, DecodeError> {
    if reader.u8()? != FORM {
        return Err(DecodeError::Invalid("a snapshot has an unknown form"));
    }
    if reader.u64()? != schema.hash() {
        return Err(DecodeError::Invalid("a snapshot is of another schema"));
    }
    reader.u32().map(Tick::new)
}

fn put_rows(out: &mut Vec<u8>, rows: &KindRows, kind: &KindSchema) {
    put_varint(out, rows.len() as u64);
    if kind.shape == KindShape::Component {
        put_ids(out, &rows.ids);
    }
    // Where the next value of each row starts.
    let mut values: Vec<&[u8]> = rows.rows().map(|(_, row)| row).collect();
    for field in &kind.fields {
        match field.exact.fixed_len() {
            Some(len) => put_fixed_column(out, &mut values, len),
            None => put_varying_column(out, &mut values, &field.exact),
        }
    }
    assert!(
        values.iter().all(|rest| rest.is_empty()),
        "a row of \"{}\" is longer than its fields",
        kind.name
    );
}

fn put_ids(out: &mut Vec<u8>, ids: &[NetId]) {
    let mut last = None;
    for id in ids {
        let bits = id.bits();
        put_varint(
            out,
            match last {
                None => bits,
                Some(last) => bits - last - 1,
            },
        );
        last = Some(bits);
    }
}

/// Appends the first `len` bytes of each of `values`, byte 0 of all first, and takes them.
fn put_fixed_column(out: &mut Vec<u8>, values: &mut [&[u8]], len: usize) {
    for at in 0..len {
        out.extend(values.iter().map(|value| value[at]));
    }
    for value in values {
        *value = &value[len..];
    }
}

/// Appends the first value of type `exact` of each of `values`, and takes it.
fn put_varying_column(out: &mut Vec<u8>, values: &mut [&[u8]], exact: &ExactType) {
    for value in values {
        let mut reader = Reader::new(value);
        check(exact, &mut reader).expect("a snapshot has rows of its schema");
        out.extend_from_slice(&value[..value.len() - reader.len()]);
        *value = reader.rest();
    }
}

/// Reads the rows of `kind`, and takes the memory that they need from `budget`.
fn read_rows(
    reader: &mut Reader<'_>,
    kind: &KindSchema,
    budget: &mut usize,
) -> Result<KindRows, DecodeError> {
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if count > ENTITIES_MAX {
        return Err(DecodeError::Invalid("a snapshot has too many entities"));
    }
    // An id takes a byte at least. Of a resource, which has no ids, there is one at most.
    let (bytes_at_least, count_max) = match kind.shape {
        KindShape::Component => (1 + kind.min_len(), ENTITIES_MAX),
        KindShape::Resource => (kind.min_len(), 1),
    };
    if count > count_max {
        return Err(DecodeError::Invalid("a resource has several rows"));
    }
    if count.saturating_mul(bytes_at_least) > reader.len() {
        return Err(DecodeError::Truncated);
    }
    let per_row = memory_per_row(kind).saturating_add(kind.min_len());
    *budget = budget
        .checked_sub(count.saturating_mul(per_row))
        .ok_or(TOO_LARGE)?;
    let ids = match kind.shape {
        KindShape::Component => read_ids(reader, count)?,
        KindShape::Resource => vec![NetId::NONE; count],
    };
    let columns = read_columns(reader, kind, count)?;
    let len: usize = columns.iter().map(|column| column.bytes.len()).sum();
    *budget = budget
        .checked_sub(len - count * kind.min_len())
        .ok_or(TOO_LARGE)?;
    let (ends, bytes) = assemble(&columns, count, len);
    let rows = KindRows { ids, ends, bytes };
    if needs_check(kind) {
        for (_, row) in rows.rows() {
            check_fields(&kind.fields, &mut Reader::new(row))?;
        }
    }
    Ok(rows)
}

const TOO_LARGE: DecodeError = DecodeError::Invalid("a snapshot exceeds its limit in memory");

fn read_ids(reader: &mut Reader<'_>, count: usize) -> Result<Vec<NetId>, DecodeError> {
    let mut ids = Vec::with_capacity(count);
    let mut next = Some(0_u64);
    for index in 0..count {
        let distance = reader.varint()?;
        let bits = next
            .and_then(|next| next.checked_add(distance))
            .ok_or(DecodeError::Invalid("an entity's id exceeds 64 bits"))?;
        if index == 0 && bits == 0 {
            return Err(DecodeError::Invalid("a component belongs to no entity"));
        }
        ids.push(NetId::from_bits(bits));
        next = bits.checked_add(1);
    }
    Ok(ids)
}

/// The values of one field over all rows.
struct Column<'a> {
    bytes: &'a [u8],
    shape: ColumnShape,
}

enum ColumnShape {
    /// Length of every value; the bytes are transposed.
    Fixed(usize),
    /// Where each value ends; the values are checked.
    Varying(Vec<u32>),
}

/// Finds the columns of `kind` in what comes next. The memory of the ends is paid for.
fn read_columns<'a>(
    reader: &mut Reader<'a>,
    kind: &KindSchema,
    count: usize,
) -> Result<Vec<Column<'a>>, DecodeError> {
    let mut columns = Vec::with_capacity(kind.fields.len());
    for field in &kind.fields {
        let column = if let Some(len) = field.exact.fixed_len() {
            let total = len.checked_mul(count).ok_or(DecodeError::Truncated)?;
            Column {
                bytes: reader.bytes(total)?,
                shape: ColumnShape::Fixed(len),
            }
        } else {
            let start = reader.rest();
            let mut ends = Vec::with_capacity(count);
            for _ in 0..count {
                check(&field.exact, reader)?;
                let end = start.len() - reader.len();
                ends.push(u32::try_from(end).map_err(|_too_large| TOO_LARGE)?);
            }
            Column {
                bytes: &start[..start.len() - reader.len()],
                shape: ColumnShape::Varying(ends),
            }
        };
        columns.push(column);
    }
    Ok(columns)
}

/// Puts the rows together: their ends, and their bytes, of which there are `len`.
fn assemble(columns: &[Column<'_>], count: usize, len: usize) -> (Vec<u32>, Vec<u8>) {
    let mut ends = Vec::with_capacity(count);
    let mut bytes = Vec::with_capacity(len);
    for row in 0..count {
        for column in columns {
            match &column.shape {
                ColumnShape::Fixed(len) => {
                    bytes.extend((0..*len).map(|at| column.bytes[at * count + row]));
                }
                ColumnShape::Varying(ends) => {
                    let start = row.checked_sub(1).map_or(0, |before| ends[before]) as usize;
                    bytes.extend_from_slice(&column.bytes[start..ends[row] as usize]);
                }
            }
        }
        ends.push(u32::try_from(bytes.len()).expect("the budget is below 4 GiB"));
    }
    (ends, bytes)
}

/// Whether a field of fixed length has byte patterns that are no values.
fn needs_check(kind: &KindSchema) -> bool {
    kind.fields
        .iter()
        .any(|field| field.exact.fixed_len().is_some() && !field.exact.is_plain())
}

#[cfg(test)]
mod tests {
    use super::super::tests::random_snapshot;
    use super::*;
    use crate::prng::Prng;
    use crate::state::schema::tests::{below, component, random_schema};
    use crate::state::{FieldSchema, Visibility};

    #[test]
    fn snapshots_come_back() {
        let mut packed = Vec::new();
        for seed in 0..2000 {
            let mut prng = Prng::new(seed);
            let schema = random_schema(&mut prng);
            let snapshot = random_snapshot(&schema, &mut prng);
            let mut bytes = Vec::new();
            snapshot.encode(&schema, &mut bytes);
            let decoded = Snapshot::decode(&bytes, &schema);
            assert_eq!(decoded.as_ref(), Ok(&snapshot), "seed {seed}");
            packed.clear();
            snapshot.compress(&schema, &mut packed);
            assert_eq!(Snapshot::decompress(&packed, &schema), Ok(snapshot));

            bytes.push(0);
            assert_eq!(
                Snapshot::decode(&bytes, &schema),
                Err(DecodeError::Trailing(1)),
                "seed {seed}"
            );
            bytes.pop();
            bytes.pop();
            assert!(Snapshot::decode(&bytes, &schema).is_err(), "seed {seed}");
        }
    }

    #[test]
    fn mutated_snapshots_decode_to_themselves_or_not_at_all() {
        let (mut accepted, mut refused) = (0, 0);
        for group in 0..2000 {
            let mut prng = Prng::with_stream(group, 1);
            let schema = random_schema(&mut prng);
            let snapshot = random_snapshot(&schema, &mut prng);
            let mut original = Vec::new();
            snapshot.encode(&schema, &mut original);
            for _ in 0..100 {
                let mut bytes = original.clone();
                for _ in 0..=below(&mut prng, 3) {
                    let at = below(&mut prng, bytes.len());
                    match below(&mut prng, 4) {
                        0 => bytes[at] ^= 1 << below(&mut prng, 8),
                        1 => bytes[at] = 0xff,
                        2 => bytes.insert(at, prng.next_u64().to_le_bytes()[0]),
                        _ => drop(bytes.remove(at)),
                    }
                    if bytes.is_empty() {
                        bytes.push(0);
                    }
                }
                match Snapshot::decode(&bytes, &schema) {
                    Ok(decoded) => {
                        accepted += 1;
                        assert_eq!(decoded.validate(&schema), Ok(()), "group {group}");
                        let mut again = Vec::new();
                        decoded.encode(&schema, &mut again);
                        assert_eq!(again, bytes, "group {group}");
                    }
                    Err(_refused) => refused += 1,
                }
            }
        }
        assert!(accepted > 5000 && refused > 50_000, "{accepted} {refused}");
    }

    fn unit_schema() -> Schema {
        let unit = component(
            "Unit",
            vec![
                FieldSchema::new("hp", ExactType::U16),
                FieldSchema::new("name", ExactType::Text),
                FieldSchema::new("alive", ExactType::Bool),
            ],
        );
        let random = KindSchema {
            shape: KindShape::Resource,
            visibility: Visibility::HostOnly,
            ..component("Random", vec![FieldSchema::new("0", ExactType::U64)])
        };
        let hidden = KindSchema {
            visibility: Visibility::Derived,
            ..component("Cache", vec![FieldSchema::new("0", ExactType::U8)])
        };
        Schema::new(vec![unit, random, hidden]).unwrap()
    }

    fn unit_snapshot() -> Snapshot {
        let mut units = KindRows::default();
        units.push(NetId::from_bits(5), |out| {
            out.extend([0x02, 0x01, 2, 0, 0, 0, b'a', b'b', 1]);
        });
        units.push(NetId::from_bits(300), |out| {
            out.extend([0x04, 0x03, 1, 0, 0, 0, b'c', 0]);
        });
        let mut random = KindRows::default();
        random.push(NetId::NONE, |out| out.extend([1, 2, 3, 4, 5, 6, 7, 8]));
        Snapshot {
            tick: Tick::new(0x0403_0201),
            kinds: vec![KindRows::default(), random, units],
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let schema = unit_schema();
        let mut bytes = Vec::new();
        unit_snapshot().encode(&schema, &mut bytes);
        let expected = [
            &[1][..],
            &schema.hash().to_le_bytes(),
            &[1, 2, 3, 4],
            &[1, 1, 2, 3, 4, 5, 6, 7, 8],
            &[2, 5, 0xa6, 0x02],
            &[0x02, 0x04, 0x01, 0x03],
            &[2, 0, 0, 0, b'a', b'b', 1, 0, 0, 0, b'c'],
            &[1, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(schema.hash(), 10_889_506_789_713_802_615);
        assert_eq!(
            unit_snapshot().hash(&schema).combined(),
            13_941_617_222_843_047_877
        );
    }

    #[test]
    fn counts_beyond_a_limit_are_refused_before_anything_is_allocated() {
        let schema = unit_schema();
        let mut header = Vec::new();
        unit_snapshot().encode(&schema, &mut header);
        header.truncate(13);
        let decode = |counts: &[u64]| {
            let mut bytes = header.clone();
            counts
                .iter()
                .for_each(|&count| put_varint(&mut bytes, count));
            Snapshot::decode(&bytes, &schema)
        };
        assert_eq!(
            decode(&[2]),
            Err(DecodeError::Invalid("a resource has several rows"))
        );
        assert_eq!(
            decode(&[0, u64::MAX]),
            Err(DecodeError::Invalid("a snapshot has too many entities"))
        );
        assert_eq!(
            decode(&[0, ENTITIES_MAX as u64]),
            Err(DecodeError::Truncated)
        );
    }

    #[test]
    fn memory_is_limited_although_many_kinds_without_bytes_share_it() {
        let kinds = (0..64)
            .map(|index| component(&format!("Marker{index:02}"), vec![]))
            .collect();
        let schema = Schema::new(kinds).unwrap();
        let mut bytes = Vec::new();
        bytes.push(FORM);
        bytes.extend_from_slice(&schema.hash().to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for _ in 0..64 {
            put_varint(&mut bytes, ENTITIES_MAX as u64);
            bytes.push(1);
            bytes.extend(std::iter::repeat_n(0, ENTITIES_MAX - 1));
        }
        assert_eq!(Snapshot::decode(&bytes, &schema), Err(TOO_LARGE));
    }

    #[test]
    fn another_schema_is_refused() {
        let other = Schema::new(vec![component("A", vec![])]).unwrap();
        let mut bytes = Vec::new();
        unit_snapshot().encode(&unit_schema(), &mut bytes);
        assert_eq!(
            Snapshot::decode(&bytes, &other),
            Err(DecodeError::Invalid("a snapshot is of another schema"))
        );
    }
}
