//! `#[derive(Exact)]` and `#[derive(Networked)]` as a game sees them: it depends on `phalanx` only.

use std::collections::BTreeMap;
use std::fmt::Debug;

use phalanx::netcode::hash::ValueHasher;
use phalanx::netcode::id::NetId;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::{
    ExactType, FieldSchema, KindHasher, KindRows, KindSchema, KindShape, Schema, Snapshot,
    Visibility, kind_salt,
};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::wire::bytes::Reader;
use phalanx::{Exact, Networked};

#[derive(Clone, Debug, PartialEq, Networked)]
#[networked(name = "Unit", version = 3, visibility = HostOnly)]
struct Soldier {
    position: [f32; 2],
    health: u16,
    order: Order,
    squad: Option<NetId>,
    items: Vec<Item>,
    r#type: u8,
}

#[derive(Clone, Debug, PartialEq, Exact)]
enum Order {
    Idle,
    Move {
        to: [f32; 2],
        until: Tick,
    },
    #[exact(tag = 9)]
    Attack(NetId, u8),
}

#[derive(Clone, Debug, PartialEq, Exact)]
struct Item {
    name: String,
    count: i32,
}

#[derive(Clone, Debug, PartialEq, Networked)]
struct Marker;

#[derive(Clone, Copy, Debug, PartialEq, Networked)]
struct Health(u16);

#[derive(Clone, Copy, Debug, PartialEq, Networked)]
#[networked(visibility = Derived)]
enum Stance {
    Calm,
    Alert(bool),
}

#[derive(Clone, Debug, PartialEq, Networked)]
struct Match {
    random: Prng,
    scores: BTreeMap<u8, (u32, bool)>,
    empty: (),
}

/// Bytes and hash agree, and the bytes give the value back.
fn round_trip<T: Exact + Debug + PartialEq>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write_exact(&mut bytes);
    let mut reader = Reader::new(&bytes);
    assert_eq!(T::read_exact(&mut reader).as_ref(), Ok(value));
    assert_eq!(reader.finish(), Ok(()));

    let mut by_value = ValueHasher::new(5);
    value.hash_exact(&mut by_value);
    let mut by_bytes = ValueHasher::new(5);
    by_bytes.raw(&bytes);
    assert_eq!(by_value.finish(), by_bytes.finish(), "{value:?}");
    bytes
}

#[test]
fn structs_are_their_fields_in_order() {
    let soldier = Soldier {
        position: [1.0, -2.0],
        health: 0x0102,
        order: Order::Attack(NetId::from_bits(7), 4),
        squad: None,
        items: vec![Item {
            name: "axe".to_owned(),
            count: -1,
        }],
        r#type: 6,
    };
    assert_eq!(
        round_trip(&soldier),
        [
            &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0][..],
            &[2, 1],
            &[9, 7, 0, 0, 0, 0, 0, 0, 0, 4],
            &[0],
            &[
                1, 0, 0, 0, 3, 0, 0, 0, b'a', b'x', b'e', 0xff, 0xff, 0xff, 0xff
            ],
            &[6],
        ]
        .concat()
    );
    assert_eq!(round_trip(&Marker), []);
    assert_eq!(round_trip(&Health(258)), [2, 1]);
    assert_eq!(round_trip(&Stance::Calm), [0]);
    assert_eq!(round_trip(&Stance::Alert(true)), [1, 1]);
    assert_eq!(round_trip(&Order::Idle), [0]);
    round_trip(&Order::Move {
        to: [0.5, f32::MIN],
        until: Tick::new(9),
    });
    round_trip(&Match {
        random: Prng::new(3),
        scores: BTreeMap::from([(1, (2, true)), (4, (5, false))]),
        empty: (),
    });
}

fn random_soldier(prng: &mut Prng) -> Soldier {
    let float = |prng: &mut Prng| prng.range_f32(-9.0, 9.0);
    let small = |prng: &mut Prng| u8::try_from(prng.below(5)).expect("below 5");
    Soldier {
        position: [float(prng), float(prng)],
        health: u16::from(small(prng)),
        order: match prng.below(3) {
            0 => Order::Idle,
            1 => Order::Move {
                to: [float(prng), -0.0],
                until: Tick::new(prng.next_u32()),
            },
            _ => Order::Attack(NetId::from_bits(prng.next_u64()), small(prng)),
        },
        squad: prng
            .chance_per_million(500_000)
            .then(|| NetId::from_bits(prng.below(3))),
        items: (0..prng.below(4))
            .map(|index| Item {
                name: "item".repeat(usize::from(small(prng))),
                count: -i32::try_from(index).expect("below 4"),
            })
            .collect(),
        r#type: small(prng),
    }
}

/// A snapshot, which knows the schema only, accepts, hashes and shows rows as the type does.
#[test]
fn the_type_and_the_schema_agree_on_bytes_and_hashes() {
    let kind = KindSchema::of::<Soldier>(KindShape::Component);
    let schema = Schema::new(vec![kind.clone()]).unwrap();
    let (mut valid, mut broken) = (0, 0);
    for seed in 0..2000 {
        let mut prng = Prng::new(seed);
        let soldier = random_soldier(&mut prng);
        let mut row = round_trip(&soldier);
        let id = NetId::from_bits(4);
        let snapshot = |row: &[u8]| {
            let mut rows = KindRows::default();
            rows.push(id, |out| out.extend_from_slice(row));
            Snapshot {
                tick: Tick::ZERO,
                kinds: vec![rows],
            }
        };
        let mut hasher = ValueHasher::new(kind_salt(Soldier::NAME));
        soldier.hash_exact(&mut hasher);
        let mut sum = KindHasher::default();
        sum.row(id, hasher.finish());
        let hash = snapshot(&row).hash(&schema);
        assert_eq!(hash.kinds(), [sum.finish()], "seed {seed}");

        for _ in 0..20 {
            let at = usize::try_from(prng.below(row.len() as u64)).unwrap();
            row[at] ^= 1 << prng.below(8);
            let mut reader = Reader::new(&row);
            let decoded = Soldier::read_exact(&mut reader);
            let accepted = decoded.is_ok() && reader.is_empty();
            let validated = snapshot(&row).validate(&schema).is_ok();
            assert_eq!(accepted, validated, "seed {seed}: {row:?}");
            if accepted {
                valid += 1;
            } else {
                broken += 1;
            }
        }
    }
    assert!(valid > 1000 && broken > 1000, "{valid} {broken}");
}

#[test]
fn an_unknown_tag_is_refused() {
    for tag in [2, 3, 8, 10, 255] {
        assert!(Order::read_exact(&mut Reader::new(&[tag; 16])).is_err());
    }
}

#[test]
fn the_schema_has_the_names_of_the_source() {
    let field = FieldSchema::new;
    let order = ExactType::Enum(vec![
        (0, "Idle".to_owned(), vec![]),
        (
            1,
            "Move".to_owned(),
            vec![
                field("to", ExactType::Array(Box::new(ExactType::F32), 2)),
                field("until", ExactType::U32),
            ],
        ),
        (
            9,
            "Attack".to_owned(),
            vec![field("0", ExactType::NetId), field("1", ExactType::U8)],
        ),
    ]);
    assert_eq!(Order::exact_type(), order);
    let item = ExactType::Struct(vec![
        field("name", ExactType::Text),
        field("count", ExactType::I32),
    ]);
    assert_eq!(
        Soldier::fields(),
        [
            field("position", ExactType::Array(Box::new(ExactType::F32), 2)),
            field("health", ExactType::U16),
            field("order", order),
            field("squad", ExactType::Option(Box::new(ExactType::NetId))),
            field("items", ExactType::List(Box::new(item))),
            field("type", ExactType::U8),
        ]
    );
    assert_eq!(Stance::fields(), [field("value", Stance::exact_type())]);
    assert_eq!(Marker::fields(), []);
}

#[test]
fn attributes_and_their_defaults() {
    assert_eq!(
        (Soldier::NAME, Soldier::VERSION, Soldier::VISIBILITY),
        ("Unit", 3, Visibility::HostOnly)
    );
    assert_eq!(
        (Health::NAME, Health::VERSION, Health::VISIBILITY),
        ("Health", 1, Visibility::Client)
    );
    assert_eq!(Stance::VISIBILITY, Visibility::Derived);
}
