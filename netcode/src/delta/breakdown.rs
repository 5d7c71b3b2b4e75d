//! Where bits go, by kind and field, for people.

use core::fmt;

use crate::state::Schema;

use super::tally::{HEADS, STRUCTURE, Tally};

/// One field's share, or that of what belongs to no field.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakdownRow {
    /// The kind's name; empty for what belongs to none: flags and ids of entities, their shapes,
    /// and what is around bodies.
    pub kind: String,
    /// The field's name; empty for what belongs to none. Of no kind, what it is, as `heads`.
    pub field: String,
    /// Bits in all.
    pub bits: f64,
}

impl BreakdownRow {
    /// What the bits are for, in a word or two.
    #[must_use]
    pub fn name(&self) -> String {
        // Names come from whoever made the file; what would steer a terminal is escaped.
        let (kind, field) = (self.kind.escape_debug(), self.field.escape_debug());
        match (self.kind.is_empty(), self.field.is_empty()) {
            (true, true) => "(entities: ids, flags, shapes)".to_owned(),
            (true, false) => format!("({field})"),
            (false, true) => format!("{kind} (flags)"),
            (false, false) => format!("{kind}.{field}"),
        }
    }
}

/// A [`Tally`] with names, the greatest share first; shown as a table. A kind's fields stand
/// together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Breakdown {
    /// The rows in the order in which they are shown.
    pub rows: Vec<BreakdownRow>,
    /// Bits of all rows.
    pub bits: f64,
    /// What the rows are shared by, for bits per snapshot; 0 if that is not known.
    pub snapshots: u64,
}

impl Breakdown {
    /// The shares of a tally over states of `schema`, which are those of `snapshots` snapshots.
    #[must_use]
    pub fn new(tally: &Tally, schema: &Schema, snapshots: u64) -> Self {
        let named = tally.iter().map(|(key, bits)| {
            let (kind, field) = key;
            let kind = schema.kinds().get(usize::from(kind));
            let kind = kind.filter(|_| key != STRUCTURE && key != HEADS);
            let field = kind.and_then(|kind| kind.fields.get(usize::from(field)));
            let of_none = if key == HEADS { "heads" } else { "" };
            BreakdownRow {
                kind: kind.map_or_else(String::new, |kind| kind.name.clone()),
                field: field.map_or_else(|| of_none.to_owned(), |field| field.name.clone()),
                bits,
            }
        });
        let mut rows: Vec<BreakdownRow> = named.collect();
        let bits = rows.iter().map(|row| row.bits).sum();
        let of_kind: Vec<(String, f64)> = kinds(&rows);
        let weight = |row: &BreakdownRow| {
            let kind = of_kind.iter().find(|kind| kind.0 == row.kind);
            kind.map_or(0.0, |kind| kind.1)
        };
        rows.sort_by(|a, b| {
            let by_kind = weight(b).total_cmp(&weight(a));
            by_kind
                .then_with(|| a.kind.cmp(&b.kind))
                .then_with(|| b.bits.total_cmp(&a.bits))
        });
        Self {
            rows,
            bits,
            snapshots,
        }
    }

    /// The share of the whole that some bits are, from 0 to 1.
    #[must_use]
    pub fn share(&self, bits: f64) -> f64 {
        if self.bits > 0.0 {
            bits / self.bits
        } else {
            0.0
        }
    }

    /// Bits per snapshot.
    #[must_use]
    pub fn per_snapshot(&self, bits: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        let snapshots = self.snapshots.max(1) as f64;
        bits / snapshots
    }
}

/// Bits per kind, in the order in which they come.
fn kinds(rows: &[BreakdownRow]) -> Vec<(String, f64)> {
    let mut kinds: Vec<(String, f64)> = Vec::new();
    for row in rows {
        match kinds.iter_mut().find(|kind| kind.0 == row.kind) {
            Some(kind) => kind.1 += row.bits,
            None => kinds.push((row.kind.clone(), row.bits)),
        }
    }
    kinds
}

impl fmt::Display for Breakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.rows.iter().map(BreakdownRow::name).collect();
        let width = names.iter().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0).max("what".len());
        writeln!(
            f,
            "{:<width$}  {:>12}  {:>14}  {:>7}",
            "what", "bytes", "bits/snapshot", "share"
        )?;
        for (row, name) in self.rows.iter().zip(&names) {
            self.line(f, width, name, row.bits)?;
            writeln!(f)?;
        }
        self.line(f, width, "all", self.bits)
    }
}

impl Breakdown {
    fn line(&self, f: &mut fmt::Formatter<'_>, width: usize, name: &str, bits: f64) -> fmt::Result {
        write!(
            f,
            "{name:<width$}  {:>12.0}  {:>14.1}  {:>6.1}%",
            bits / 8.0,
            self.per_snapshot(bits),
            self.share(bits) * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{Encoder, View};
    use crate::id::NetId;
    use crate::state::{
        ExactType, FieldSchema, KindRows, KindSchema, KindShape, QuantizedSnapshot, Quantizer,
        Shapes, Snapshot, Visibility, WireLayout,
    };
    use std::sync::Arc;

    #[test]
    fn bits_are_named_and_sum_up_to_the_body() {
        let kind = |name: &str, fields| KindSchema {
            name: name.to_owned(),
            version: 1,
            shape: KindShape::Component,
            visibility: Visibility::Client,
            fields,
        };
        let schema = Schema::new(vec![
            kind("Big", vec![FieldSchema::new("hash", ExactType::U64)]),
            kind(
                "Small",
                vec![
                    FieldSchema::new("on", ExactType::Bool),
                    FieldSchema::new("count", ExactType::U8),
                ],
            ),
        ])
        .unwrap();
        let mut rows = [KindRows::default(), KindRows::default()];
        for id in 1..200_u64 {
            let word = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            rows[0].push(NetId::from_bits(id), |out| out.extend(word.to_le_bytes()));
            rows[1].push(NetId::from_bits(id), |out| {
                out.extend([1, word.to_le_bytes()[3]])
            });
        }
        let exact = Snapshot {
            tick: crate::tick::Tick::ZERO,
            kinds: rows.to_vec(),
        };
        let layout = Arc::new(WireLayout::new(&schema));
        let (mut shapes, mut now) = (Shapes::default(), QuantizedSnapshot::default());
        Quantizer::default().quantize(&layout, &mut shapes, &exact, None, &mut now);
        let mut encoder = Encoder::new(layout);
        encoder.set_tally(true);
        let mut body = Vec::new();
        let view = View::all(&now);
        encoder.encode_whole(&shapes, view, &[], NetId::NONE, 1 << 20, &mut body);
        let table = Breakdown::new(encoder.tally().unwrap(), &schema, 1);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let body_bits = body.len() as f64 * 8.0;
        assert!(
            (table.bits - body_bits).abs() < body_bits * 0.01 + 64.0,
            "{} of {body_bits}",
            table.bits
        );
        assert_eq!(
            (table.rows[0].kind.as_str(), table.rows[0].field.as_str()),
            ("Big", "hash")
        );
        assert!(table.rows[0].bits > 199.0 * 60.0);
        let shares: f64 = table.rows.iter().map(|row| table.share(row.bits)).sum();
        assert!((shares - 1.0).abs() < 1e-9);
        let text = table.to_string();
        assert!(
            text.contains("Small.count") && text.contains("100.0%"),
            "{text}"
        );
    }
}
