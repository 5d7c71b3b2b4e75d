//! Deltas between random states, damaged deltas, and the bytes of one.

use super::*;
use crate::id::NetId;
use crate::prng::Prng;
use crate::state::schema::tests::{below, component, random_schema};
use crate::state::snapshot::tests::{random_row, random_snapshot};
use crate::state::{ExactType, FieldSchema, KindSchema, KindShape, Visibility};

/// What becomes of `state` some ticks later.
fn later(schema: &Schema, state: &Snapshot, prng: &mut Prng) -> Snapshot {
    let mut after = Snapshot {
        tick: Tick::new(state.tick.number() + 1 + u32::try_from(prng.below(9)).unwrap()),
        kinds: Vec::new(),
    };
    let churn = prng.below(5);
    for (rows, kind) in state.kinds.iter().zip(schema.kinds()) {
        let mut now = KindRows::default();
        let is_component = kind.shape == KindShape::Component;
        let mut last = 0;
        for (id, row) in rows.rows() {
            let mut add_between = |now: &mut KindRows, prng: &mut Prng| {
                if is_component && id.bits() > last + 1 && prng.below(4) < churn {
                    let new = random_row(kind, prng);
                    let between = NetId::from_bits(last + 1);
                    now.push(between, |out| out.extend_from_slice(&new));
                }
                last = id.bits();
            };
            add_between(&mut now, prng);
            match prng.below(8) {
                0 if churn > 0 => {}
                1 | 2 => {
                    let new = random_row(kind, prng);
                    now.push(id, |out| out.extend_from_slice(&new));
                }
                _ => now.push(id, |out| out.extend_from_slice(row)),
            }
        }
        if kind.visibility.in_snapshots() && prng.below(4) < churn {
            let (mut last, count) = if is_component {
                (last, 1 + prng.below(3))
            } else {
                (u64::MAX, u64::from(now.is_empty()))
            };
            for _ in 0..count {
                last = last.wrapping_add(1 + if is_component { prng.below(3) } else { 0 });
                let row = random_row(kind, prng);
                now.push(NetId::from_bits(last), |out| out.extend_from_slice(&row));
            }
        }
        after.kinds.push(now);
    }
    after
}

/// A schema and four states in a row.
fn history(prng: &mut Prng) -> (Arc<Schema>, Vec<Snapshot>) {
    let schema = Arc::new(random_schema(prng));
    let mut state = random_snapshot(&schema, prng);
    state.tick = Tick::new(u32::try_from(prng.below(1000)).unwrap());
    let mut states = vec![state];
    for _ in 0..3 {
        let next = later(&schema, states.last().unwrap(), prng);
        states.push(next);
    }
    (schema, states)
}

#[test]
fn deltas_lead_to_the_later_state() {
    let (mut reused, mut bytes) = (Snapshot::default(), Vec::new());
    for seed in 0..3000 {
        let mut prng = Prng::new(seed);
        let (schema, states) = history(&mut prng);
        let (mut ours, mut theirs) = (DeltaCodec::new(&schema), DeltaCodec::new(&schema));
        for (start, earlier, after) in [(0, None, 1), (1, Some(0), 3), (2, Some(0), 2)] {
            bytes.clear();
            let earlier: Option<&Snapshot> = earlier.map(|index: usize| &states[index]);
            ours.encode(&states[start], earlier, &states[after], &mut bytes);
            let head = DeltaHead::peek(&bytes).unwrap();
            assert_eq!(head.start, states[start].tick);
            assert_eq!(head.tick, states[after].tick);
            assert_eq!(head.earlier, earlier.map(|state| state.tick));
            let applied = theirs.apply(&states[start], earlier, &bytes, &mut reused);
            assert_eq!(applied, Ok(()), "seed {seed}");
            assert_eq!(reused, states[after], "seed {seed}");
            assert_eq!(reused.hash(&schema), states[after].hash(&schema));
        }
    }
}

#[test]
fn damaged_deltas_lead_to_valid_states_or_nowhere() {
    let (mut accepted, mut refused) = (0, 0);
    let mut out = Snapshot::default();
    for group in 0..2000 {
        let mut prng = Prng::with_stream(group, 1);
        let (schema, states) = history(&mut prng);
        let mut codec = DeltaCodec::new(&schema);
        let earlier = (prng.below(2) == 0).then(|| &states[0]);
        let mut original = Vec::new();
        codec.encode(&states[1], earlier, &states[2], &mut original);
        for _ in 0..50 {
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
            match codec.apply(&states[1], earlier, &bytes, &mut out) {
                Ok(()) => {
                    accepted += 1;
                    assert_eq!(out.validate(&schema), Ok(()), "group {group}");
                }
                Err(_refused) => refused += 1,
            }
        }
    }
    assert!(accepted > 5000 && refused > 50_000, "{accepted} {refused}");
}

fn unit_schema() -> Arc<Schema> {
    let unit = component(
        "Unit",
        vec![
            FieldSchema::new("x", ExactType::F32),
            FieldSchema::new("hp", ExactType::U16),
        ],
    );
    let name = component("Name", vec![FieldSchema::new("0", ExactType::Text)]);
    let random = KindSchema {
        shape: KindShape::Resource,
        visibility: Visibility::HostOnly,
        ..component("Random", vec![FieldSchema::new("0", ExactType::U64)])
    };
    Arc::new(Schema::new(vec![unit, name, random]).unwrap())
}

/// Units from the first id on, with these places and lives; one name; the random number.
fn units(tick: u32, first: u64, units: &[(f32, u16)], name: &str, random: u64) -> Snapshot {
    let mut kinds = vec![KindRows::default(); 3];
    kinds[0].push(NetId::from_bits(1), |out| {
        out.extend([name.len().to_le_bytes()[0], 0, 0, 0]);
        out.extend_from_slice(name.as_bytes());
    });
    kinds[1].push(NetId::NONE, |out| out.extend(random.to_le_bytes()));
    for (id, (x, hp)) in (first..).zip(units) {
        kinds[2].push(NetId::from_bits(id), |out| {
            out.extend(x.to_le_bytes());
            out.extend(hp.to_le_bytes());
        });
    }
    Snapshot {
        tick: Tick::new(tick),
        kinds,
    }
}

#[test]
fn the_bytes_are_these() {
    let schema = unit_schema();
    let earlier = units(9, 5, &[(1.0, 100), (2.0, 100)], "Ann", 7);
    let start = units(10, 5, &[(1.25, 99), (2.0, 100)], "Ann", 7);
    let after = units(12, 6, &[(2.0, 100), (8.0, 50)], "Anna", 7);
    let mut codec = DeltaCodec::new(&schema);
    let mut bytes = Vec::new();
    codec.encode(&start, None, &after, &mut bytes);
    let spawned = [
        &[1, 12, 0, 0, 0, 2, 0, 0b101][..],
        // The name: one changed row; columns: no removed, changed: index 0.
        &[0, 1, 0, 0, 0],
        // The row has 4 more; a length of 4 and all letters but the last stay.
        &[0, 0, 8, 4, 0, 0, 0, b'A', b'n', b'n', b'a'],
        // Units: one removed, one added, its id 1 above the last; its columns.
        &[1, 0, 1, 2, 0, 0],
    ]
    .concat();
    assert_eq!(bytes[..spawned.len()], spawned, "{bytes:02x?}");
    let mut out = Snapshot::default();
    codec.apply(&start, None, &bytes, &mut out).unwrap();
    assert_eq!(out, after);

    // Unit 5 goes on as foretold: 2^21 of the float's steps a tick, and one life.
    let after = units(12, 5, &[(1.75, 97), (2.0, 100)], "Ann", 7);
    bytes.clear();
    codec.encode(&start, Some(&earlier), &after, &mut bytes);
    // No removed; changed: index 0; x: foretold, 0; hp: foretold, 0.
    let expected = [1, 12, 0, 0, 0, 2, 1, 0b100, 0, 1, 0, 0, 0x40, 0x40, 0];
    assert_eq!(bytes, expected, "{bytes:02x?}");
    codec
        .apply(&start, Some(&earlier), &bytes, &mut out)
        .unwrap();
    assert_eq!(out, after);
}

#[test]
fn an_unchanged_state_costs_its_head() {
    let start = units(10, 5, &[(1.0, 1); 1000], "Ann", 7);
    let mut after = start.clone();
    after.tick = Tick::new(11);
    let mut codec = DeltaCodec::new(&unit_schema());
    let mut bytes = Vec::new();
    codec.encode(&start, None, &after, &mut bytes);
    assert_eq!(bytes, [1, 11, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn deltas_of_other_states_are_refused() {
    let schema = unit_schema();
    let states: Vec<Snapshot> = (10..13)
        .map(|tick| units(tick, 5, &[(0.5, 1)], "Ann", u64::from(tick)))
        .collect();
    let mut codec = DeltaCodec::new(&schema);
    let mut bytes = Vec::new();
    codec.encode(&states[1], Some(&states[0]), &states[2], &mut bytes);
    let mut out = Snapshot::default();
    for (start, earlier) in [(0, Some(0)), (1, None), (1, Some(1)), (2, Some(0))] {
        let earlier: Option<&Snapshot> = earlier.map(|index: usize| &states[index]);
        assert_eq!(
            codec.apply(&states[start], earlier, &bytes, &mut out),
            Err(DecodeError::Invalid("a delta starts from another state"))
        );
    }
    assert!(DeltaHead::peek(&[1, 3, 0, 0, 0, 4, 0]).is_err(), "below 0");
    assert!(DeltaHead::peek(&[1, 3, 0, 0, 0, 1, 3]).is_err(), "below 0");
    assert!(DeltaHead::peek(&[2, 3, 0, 0, 0, 1, 0]).is_err(), "form");
}

/// Counts that a few bytes claim.
#[test]
fn hostile_counts_allocate_nothing() {
    let schema = unit_schema();
    let start = units(10, 5, &[(0.5, 1)], "Ann", 1);
    let mut codec = DeltaCodec::new(&schema);
    let mut apply = |changes: &[u8]| {
        let mut bytes = vec![1, 11, 0, 0, 0, 1, 0, 0b100];
        bytes.extend_from_slice(changes);
        let mut out = Snapshot::default();
        let result = codec.apply(&start, None, &bytes, &mut out);
        assert!(out.kinds.iter().all(|rows| rows.bytes.capacity() < 1000));
        result
    };
    let is_invalid = |result| matches!(result, Err(DecodeError::Invalid(_)));
    assert!(is_invalid(apply(&[2, 0, 0])), "more removed than there are");
    assert!(is_invalid(apply(&[1, 1, 0])), "more changed than there are");
    assert!(
        is_invalid(apply(&[0, 0, 0xff, 0xff, 0xff, 0x7f])),
        "beyond the limit"
    );
    assert_eq!(
        apply(&[0, 0, 0xff, 0xff, 0x3f]),
        Err(DecodeError::Truncated)
    );
    assert!(
        is_invalid(apply(&[0, 0, 1, 0, 0, 0])),
        "an id that is there"
    );
}
