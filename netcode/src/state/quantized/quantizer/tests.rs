//! Random states, quantized with and without an earlier one.

use super::*;
use crate::prng::Prng;
use crate::state::schema::tests::below;
use crate::state::snapshot::tests::{random_row, random_snapshot};
use crate::state::wire_form::tests::random_wire_schema;
use crate::state::{KindShape, Schema, Visibility};
use crate::tick::Tick;

/// The same state some ticks later: rows changed, in half of the cases also inserted and removed.
fn later(schema: &Schema, before: &Snapshot, prng: &mut Prng) -> Snapshot {
    let same_rows = below(prng, 2) == 0;
    let mut now = Snapshot {
        tick: Tick::new(before.tick.number() + 3),
        kinds: Vec::new(),
    };
    let changes = [0, 100_000, 600_000][below(prng, 3)];
    for (kind, old) in schema.kinds().iter().zip(&before.kinds) {
        let mut rows = KindRows::default();
        for (id, row) in old.rows() {
            if prng.chance_per_million(changes) {
                match below(prng, 3) {
                    0 if !same_rows => continue,
                    1 if !same_rows && kind.shape == KindShape::Component => {
                        // Gone, and another one there in its place.
                        let id = NetId::from_bits(id.bits().saturating_add(1));
                        if old.find(id).is_none() {
                            let row = random_row(kind, prng);
                            rows.push(id, |out| out.extend_from_slice(&row));
                        }
                    }
                    _ => {
                        let row = random_row(kind, prng);
                        rows.push(id, |out| out.extend_from_slice(&row));
                    }
                }
            } else {
                rows.push(id, |out| out.extend_from_slice(row));
            }
        }
        now.kinds.push(rows);
    }
    now
}

#[test]
fn what_came_before_saves_work_and_changes_nothing() {
    let mut kept = 0;
    for seed in 0..3000 {
        let mut prng = Prng::new(seed);
        let schema = random_wire_schema(&mut prng);
        let layout = WireLayout::new(&schema);
        let mut shapes = Shapes::default();
        let mut quantizer = Quantizer::default();
        let mut exact = random_snapshot(&schema, &mut prng);
        exact.tick = Tick::new(9);
        let mut old = QuantizedSnapshot::default();
        quantizer.quantize(&layout, &mut shapes, &exact, None, &mut old);
        for _ in 0..4 {
            let next = later(&schema, &exact, &mut prng);
            assert_eq!(next.validate(&schema), Ok(()), "seed {seed}");
            let mut fresh = QuantizedSnapshot::default();
            quantizer.quantize(&layout, &mut shapes, &next, None, &mut fresh);
            // Left from another use: it must not show through.
            let mut quick = old.clone();
            let before = Some((&exact, &old));
            let report = quantizer.quantize(&layout, &mut shapes, &next, before, &mut quick);
            assert_eq!(quick.tick, next.tick);
            assert_eq!(quick.len(), fresh.len(), "seed {seed}");
            let mut changed = 0;
            for (quick, fresh) in quick.entities().zip(fresh.entities()) {
                assert_eq!(quick.id, fresh.id, "seed {seed}");
                assert!(quick.same_value(&fresh), "seed {seed}: {}", quick.id);
                let same = old.find(quick.id).filter(|old| old.same_value(&quick));
                changed += usize::from(same.is_none());
                kept += usize::from(same.is_some());
                let expected = same.map_or(next.tick, |old| old.changed);
                assert_eq!(quick.changed, expected, "seed {seed}: {}", quick.id);
            }
            assert_eq!(report.changed, changed, "seed {seed}");
            let gone = old.entities().filter(|old| fresh.find(old.id).is_none());
            assert_eq!(report.removed, gone.count(), "seed {seed}");
            assert_eq!(report.left_out, 0);
            (exact, old) = (next, quick);
        }
    }
    assert!(kept > 10_000, "{kept}");
}

#[test]
fn only_what_clients_see_is_there() {
    for seed in 0..500 {
        let mut prng = Prng::new(seed);
        let schema = random_wire_schema(&mut prng);
        let layout = WireLayout::new(&schema);
        let mut shapes = Shapes::default();
        let exact = random_snapshot(&schema, &mut prng);
        let mut out = QuantizedSnapshot::default();
        Quantizer::default().quantize(&layout, &mut shapes, &exact, None, &mut out);
        let mut rows = 0;
        for entity in out.entities() {
            let shape = shapes.get(entity.shape);
            assert_eq!(*shape.starts.last().unwrap() as usize, entity.lanes.len());
            for &kind in &shape.kinds {
                let index = usize::from(kind);
                assert_eq!(schema.kinds()[index].visibility, Visibility::Client);
                assert!(exact.kinds[index].find(entity.id).is_some(), "seed {seed}");
                rows += 1;
            }
        }
        let visible = schema.kinds().iter().zip(&exact.kinds);
        let expected: usize = visible
            .filter(|(kind, _)| kind.visibility == Visibility::Client)
            .map(|(_, rows)| rows.len())
            .sum();
        assert_eq!(rows, expected, "seed {seed}");
    }
}
