//! Patches between random states.

use super::*;
use crate::prng::Prng;
use crate::state::Quantizer;
use crate::state::snapshot::tests::random_snapshot;
use crate::state::wire_form::tests::random_wire_schema;

/// The state that a client with these values has: visible kinds as quantized, others its own.
fn held(
    layout: &WireLayout,
    shapes: &mut Shapes,
    exact: &Snapshot,
    quantized: &mut QuantizedSnapshot,
) {
    Quantizer::default().quantize(layout, shapes, exact, None, quantized);
}

#[test]
fn a_patch_leads_from_one_state_to_the_other() {
    let mut rows = 0;
    for seed in 0..3000 {
        let mut prng = Prng::new(seed);
        let schema = random_wire_schema(&mut prng);
        let layout = WireLayout::new(&schema);
        let mut shapes = Shapes::default();
        let (mut a, mut b) = Default::default();
        held(
            &layout,
            &mut shapes,
            &random_snapshot(&schema, &mut prng),
            &mut a,
        );
        held(
            &layout,
            &mut shapes,
            &random_snapshot(&schema, &mut prng),
            &mut b,
        );

        // A newcomer takes over a whole state.
        let mut patch = Patch::default();
        Patch::between(&layout, &shapes, None, &a, &mut patch).unwrap();
        assert!(patch.is_whole);
        let own = random_snapshot(&schema, &mut prng);
        let mut client = own.clone();
        patch.apply_to(&schema, &mut client);
        assert_eq!(client.validate(&schema), Ok(()), "seed {seed}");
        assert_eq!(client.tick, a.tick);
        for (index, kind) in schema.kinds().iter().enumerate() {
            let (before, after) = (&own.kinds[index], &client.kinds[index]);
            if kind.visibility != Visibility::Client {
                let stay = |id: &NetId| id.is_none() || a.find(*id).is_some();
                let expected: Vec<_> = before.ids.iter().copied().filter(stay).collect();
                assert_eq!(after.ids, expected, "seed {seed}");
                assert!(after.rows().all(|(id, row)| before.find(id) == Some(row)));
            }
        }
        let mut again = QuantizedSnapshot::default();
        held(&layout, &mut shapes, &client, &mut again);
        let same = |a: &QuantizedSnapshot, b: &QuantizedSnapshot| {
            a.len() == b.len()
                && a.entities()
                    .zip(b.entities())
                    .all(|(a, b)| a.id == b.id && a.same_value(&b))
        };
        assert!(same(&again, &a), "seed {seed}: canonical");

        // From there it goes on by what differs.
        Patch::between(&layout, &shapes, Some(&a), &b, &mut patch).unwrap();
        assert!(!patch.is_whole);
        let hidden = client.clone();
        patch.apply_to(&schema, &mut client);
        assert_eq!(client.validate(&schema), Ok(()), "seed {seed}");
        held(&layout, &mut shapes, &client, &mut again);
        assert!(same(&again, &b), "seed {seed}");
        for (index, kind) in schema.kinds().iter().enumerate() {
            if kind.visibility != Visibility::Client {
                let (before, after) = (&hidden.kinds[index], &client.kinds[index]);
                let gone = |id: &NetId| a.find(*id).is_some() && b.find(*id).is_none();
                let stay: Vec<_> = before
                    .ids
                    .iter()
                    .copied()
                    .filter(|id| id.is_none() || !gone(id))
                    .collect();
                assert_eq!(after.ids, stay, "seed {seed}");
            } else {
                // Rows that are equal are not mentioned.
                for (id, row) in patch.kinds[index].rows.rows() {
                    assert_ne!(hidden.kinds[index].find(id), Some(row), "seed {seed}");
                    rows += 1;
                }
            }
        }
        Patch::between(&layout, &shapes, Some(&b), &b, &mut patch).unwrap();
        assert!(patch.is_empty(), "seed {seed}");
    }
    assert!(rows > 1000, "{rows}");
}
