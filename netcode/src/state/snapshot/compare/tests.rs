//! Differences are named by their path.

use super::*;
use crate::prng::Prng;
use crate::state::schema::tests::{below, component, random_schema};
use crate::state::snapshot::tests::{random_row, random_snapshot};
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
