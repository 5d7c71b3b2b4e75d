//! A snapshot as text.

use core::fmt;

use super::{Schema, Snapshot};
use crate::state::text::row_text;

impl Snapshot {
    /// Writes the whole state for people to read: resources first, then entity by entity.
    ///
    /// ```text
    /// tick 120
    /// resource Random: 77
    /// entity 1.7
    ///   Health: 258
    ///   Unit: {position: (1.0, 2.5), order: Idle}
    /// ```
    ///
    /// Rows that are no values of their kind are shown in hexadecimal.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_text(&self, schema: &Schema, out: &mut impl fmt::Write) -> fmt::Result {
        writeln!(out, "tick {}", self.tick)?;
        let mut rows: Vec<_> = (self.kinds.iter().zip(schema.kinds()))
            .flat_map(|(rows, kind)| rows.rows().map(move |(id, row)| (id, kind, row)))
            .collect();
        // Stable: the kinds of one entity stay in the order of the schema.
        rows.sort_by_key(|&(id, _, _)| id);
        let mut last = None;
        for (id, kind, row) in rows {
            if id.is_none() {
                write!(out, "{} {}", kind.shape, kind.name)?;
            } else {
                if last != Some(id) {
                    writeln!(out, "entity {id}")?;
                    last = Some(id);
                }
                write!(out, "  {}", kind.name)?;
            }
            if !kind.fields.is_empty() {
                write!(out, ": {}", row_text(&kind.fields, row))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::id::NetId;
    use crate::state::schema::tests::component;
    use crate::state::{ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot};
    use crate::tick::Tick;

    #[test]
    fn all_kinds_of_an_entity_stand_together() {
        let schema = Schema::new(vec![
            component("Health", vec![FieldSchema::new("0", ExactType::U8)]),
            component("Marker", vec![]),
            KindSchema {
                shape: KindShape::Resource,
                ..component("Score", vec![FieldSchema::new("red", ExactType::I8)])
            },
        ])
        .unwrap();
        let mut kinds = vec![KindRows::default(); 3];
        kinds[0].push(NetId::from_bits(1), |out| out.push(5));
        kinds[0].push(NetId::from_bits((1 << 32) | 2), |out| out.push(6));
        kinds[1].push(NetId::from_bits((1 << 32) | 2), |_| ());
        kinds[2].push(NetId::NONE, |out| out.push(0xff));
        let snapshot = Snapshot {
            tick: Tick::new(9),
            kinds,
        };
        let mut text = String::new();
        snapshot.write_text(&schema, &mut text).unwrap();
        assert_eq!(
            text,
            "tick 9\nresource Score: {red: -1}\nentity 0.1\n  Health: 5\nentity 1.2\n  \
             Health: 6\n  Marker\n"
        );
    }
}
