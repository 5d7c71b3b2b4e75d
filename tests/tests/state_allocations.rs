//! A state-sync host's steady tick allocates nothing: publishing, writing to clients that see
//! everything or a part, in whole or in part bodies, and taking their acks.

use std::collections::VecDeque;

use phalanx::netcode::id::{MemberId, NetId, Slot, Term};
use phalanx::netcode::limits::STATE_RING_SNAPSHOTS;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot, Visibility, WireForm,
};
use phalanx::netcode::statesync::{Interest, Publisher, PublisherConfig, Subscription, Viewer};
use phalanx::netcode::tick::{Seq, Tick, TickRate};
use phalanx_tests::counting::{Counting, allocations};

/// Ticks in which buffers find their size.
const WARM_UP_TICKS: u32 = 900;
/// Ticks that are counted.
const COUNTED_TICKS: u32 = 300;
const ENTITIES: u32 = 400;

#[global_allocator]
static COUNTING: Counting = Counting;

fn schema() -> Schema {
    let kind = |name: &str, field| KindSchema {
        name: name.to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: vec![field],
    };
    let place = WireForm::Fixed {
        min: -64,
        max: 64,
        per_unit: 64,
    };
    Schema::new(vec![
        kind("phalanx.owner", FieldSchema::new("0", ExactType::U8)),
        kind(
            "place",
            FieldSchema::new("0", ExactType::Vec3)
                .wire(place)
                .position(),
        ),
    ])
    .expect("the schema is sound")
}

/// Everyone walks about.
fn advance(snapshot: &mut Snapshot, places: &mut [[f32; 3]], prng: &mut Prng, tick: Tick) {
    snapshot.tick = tick;
    let [owner, place] = &mut snapshot.kinds[..] else {
        panic!("two kinds");
    };
    owner.clear();
    place.clear();
    for (n, at) in (1..=ENTITIES).zip(places) {
        let id = NetId::new(Term(1), n);
        if n <= 4 {
            owner.push(id, |out| out.push(n.to_le_bytes()[0]));
        }
        for axis in &mut at[..2] {
            *axis = (*axis + prng.range_f32(-0.5, 0.5)).clamp(-60.0, 60.0);
        }
        place.push(id, |out| {
            at.iter()
                .for_each(|part| out.extend_from_slice(&part.to_le_bytes()));
        });
    }
}

/// Allocations of the counted ticks, and which bodies they had: whole and part ones.
fn run(interest: Option<Interest>, budget_bytes_per_second: u32) -> (u64, u64, u64) {
    let schema = schema();
    let config = PublisherConfig {
        snapshot_ticks: 3,
        rate: TickRate::DEFAULT,
        budget_bytes_per_second,
    };
    let mut publisher = Publisher::new(&schema, config);
    publisher.set_interest(interest);
    let mut clients: Vec<Subscription> = (1..=4)
        .map(|slot| {
            Subscription::new(Viewer {
                member: MemberId(u64::from(slot)),
                slot: Some(Slot(slot)),
                ..Viewer::default()
            })
        })
        .collect();
    let mut prng = Prng::new(5);
    let mut places: Vec<[f32; 3]> = (0..ENTITIES)
        .map(|_| {
            [
                prng.range_f32(-60.0, 60.0),
                prng.range_f32(-60.0, 60.0),
                0.0,
            ]
        })
        .collect();
    let mut snapshot = Snapshot {
        tick: Tick::ZERO,
        kinds: vec![KindRows::default(); 2],
    };
    let mut under_way = VecDeque::with_capacity(16);
    let mut body = Vec::with_capacity(2048);
    let mut counted = 0;
    let totals = |clients: &[Subscription]| {
        clients.iter().fold((0, 0), |(whole, parts), client| {
            let statistics = client.statistics();
            (whole + statistics.whole, parts + statistics.parts)
        })
    };
    let mut before = (0, 0);
    for tick in 0..WARM_UP_TICKS + COUNTED_TICKS {
        if tick == WARM_UP_TICKS {
            before = totals(&clients);
        }
        let is_due = tick.is_multiple_of(3);
        if is_due {
            advance(&mut snapshot, &mut places, &mut prng, Tick::new(tick));
        }
        let from = allocations();
        if is_due {
            publisher.publish(&snapshot);
        }
        for client in &mut clients {
            body.clear();
            client.write(&mut publisher, Seq::new(tick), 1100, &mut body);
        }
        under_way.push_back(Seq::new(tick));
        if under_way.len() > 7
            && let Some(seq) = under_way.pop_front()
        {
            for (at, client) in (0_u32..).zip(&mut clients) {
                // Some are lost.
                if (seq.number() + at).is_multiple_of(16) {
                    client.on_lost(seq);
                } else {
                    client.on_ack(seq);
                }
            }
        }
        if tick >= WARM_UP_TICKS {
            counted += allocations() - from;
        }
    }
    let after = totals(&clients);
    (counted, after.0 - before.0, after.1 - before.1)
}

#[test]
fn whole_bodies_for_everyone_allocate_nothing() {
    const { assert!(WARM_UP_TICKS > 3 * 3 * STATE_RING_SNAPSHOTS) };
    let (allocations, whole, _) = run(None, 100_000);
    assert!(whole > 300, "only {whole} whole bodies");
    assert_eq!(allocations, 0);
}

#[test]
fn part_bodies_allocate_nothing() {
    let (allocations, _, parts) = run(None, 4_000);
    assert!(parts > 300, "only {parts} part bodies");
    assert_eq!(allocations, 0);
}

#[test]
fn bodies_of_a_rotation_allocate_nothing() {
    let (allocations, _, parts) = run(None, 16_000);
    assert!(parts > 300, "only {parts} part bodies");
    assert_eq!(allocations, 0);
}

#[test]
fn clients_with_interests_of_their_own_allocate_nothing() {
    let (allocations, whole, parts) = run(Some(Interest::within(30.0)), 100_000);
    assert!(whole + parts > 300, "only {whole} and {parts} bodies");
    assert_eq!(allocations, 0);
}
