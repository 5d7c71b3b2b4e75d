//! `#[derive(Exact)]` and `#[derive(Networked)]` as a game sees them: it depends on `phalanx` only.

use std::collections::BTreeMap;
use std::fmt::Debug;

use phalanx::math::{Quat, Vec2, Vec3};
use phalanx::netcode::hash::ValueHasher;
use phalanx::netcode::id::NetId;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::{
    ExactType, FieldSchema, Interpolation, KindHasher, KindRows, KindSchema, KindShape, Prediction,
    Schema, Snapshot, Visibility, WireForm, WireLayout, kind_salt,
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

#[derive(Clone, Debug, PartialEq, Networked)]
#[networked(name = "Ship", interpolate = "step")]
struct Ship {
    #[networked(range(-32..=32), per_unit = 512, position, interpolate = "linear")]
    at: Vec2,
    #[networked(rotation = 9)]
    #[networked(interpolate = "spherical")]
    facing: Quat,
    #[networked(unit = 10)]
    aim: Vec3,
    #[networked(range(0..=100), predict = "last")]
    hull: u16,
    #[networked(varint)]
    score: u64,
    #[networked(half)]
    heat: [f32; 3],
    course: Course,
}

#[derive(Clone, Debug, PartialEq, Exact)]
enum Course {
    Stay,
    To {
        #[networked(range(-32..=32), per_unit = 4)]
        place: Vec2,
    },
}

#[test]
fn fields_declare_their_wire_form() {
    let metres = |per_unit| WireForm::Fixed {
        min: -32,
        max: 32,
        per_unit,
    };
    let field = FieldSchema::new;
    let fields = Ship::fields();
    assert_eq!(
        fields,
        [
            field("at", ExactType::Vec2).wire(metres(512)).position(),
            field("facing", ExactType::Quat).wire(WireForm::Rotation { bits: 9 }),
            field("aim", ExactType::Vec3).wire(WireForm::Unit { bits: 10 }),
            field("hull", ExactType::U16)
                .wire(WireForm::Range { min: 0, max: 100 })
                .predicted(Prediction::Last),
            field("score", ExactType::U64).wire(WireForm::Varint),
            field("heat", <[f32; 3]>::exact_type()).wire(WireForm::Half),
            field(
                "course",
                ExactType::Enum(vec![
                    (0, "Stay".to_owned(), vec![]),
                    (
                        1,
                        "To".to_owned(),
                        vec![field("place", ExactType::Vec2).wire(metres(4))]
                    ),
                ])
            ),
        ]
    );
    let shown: Vec<Interpolation> = fields.iter().map(|field| field.interpolation).collect();
    use Interpolation::{Linear, Spherical, Step};
    assert_eq!(shown, [Linear, Spherical, Step, Step, Step, Step, Step]);

    let schema = Schema::new(vec![KindSchema::of::<Ship>(KindShape::Component)]).unwrap();
    let layout = WireLayout::new(&schema);
    let layout = layout.kind(0).unwrap();
    let ship = Ship {
        at: Vec2::new(1.0, -31.999),
        facing: Quat::from_xyzw(0.5, 0.5, -0.5, 0.5),
        aim: Vec3::new(0.0, 3.0, 0.0),
        hull: 250,
        score: 1 << 40,
        heat: [0.5, 1e-3, 7e4],
        course: Course::To {
            place: Vec2::new(0.3, 4.1),
        },
    };
    let mut row = Vec::new();
    ship.write_exact(&mut row);
    let (mut lanes, mut opaque, mut clamped) = Default::default();
    layout
        .quantize(&row, &mut lanes, &mut opaque, &mut clamped)
        .unwrap();
    assert_eq!(clamped, 2, "the hull, and the last heat");
    row.clear();
    layout
        .dequantize(&lanes, &mut &opaque[..], &mut row)
        .unwrap();
    let shown = Ship::read_exact(&mut Reader::new(&row)).unwrap();
    assert_eq!(shown.at, Vec2::new(1.0, -31.998_047));
    assert!(shown.facing.dot(ship.facing).abs() > 0.999_99);
    assert!((shown.aim - Vec3::Y).length() < 0.003, "{}", shown.aim);
    assert_eq!((shown.hull, shown.score), (100, 1 << 40));
    assert_eq!(shown.heat, [0.5, 0.001_000_404_4, 65_504.0]);
    let place = Vec2::new(0.25, 4.0);
    assert_eq!(shown.course, Course::To { place });
    assert_eq!(layout.place(&lanes), Some([1.0, -31.998_046_875, 0.0]));
}
