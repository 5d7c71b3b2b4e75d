//! A world that does not fit the budget goes round: clients that see all of it share what is made
//! for them, and none of them waits for an entity for much longer than a round takes. Nor does
//! anyone where it nearly fits.

use std::collections::VecDeque;

use phalanx_netcode::id::{MemberId, NetId, Slot, Term};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot, Visibility, WireForm,
};
use phalanx_netcode::statesync::{
    Interest, Publisher, PublisherConfig, Receiver, Subscription, Viewer,
};
use phalanx_netcode::tick::{Seq, Tick, TickRate};

const SNAPSHOT_TICKS: u32 = 3;
const ENTITIES: u32 = 1500;
const CLIENTS: u16 = 24;
/// The last clients: one plays, one loses datagrams, one joins late, one has another round trip.
const PLAYER: u16 = 20;
const LOSER: u16 = 21;
const LATE: u16 = 22;
const FAR: u16 = 23;

fn schema() -> Schema {
    let kind = |name: &str, field: FieldSchema| KindSchema {
        name: name.to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: vec![field],
    };
    let place = FieldSchema::new("0", ExactType::Vec3).wire(WireForm::Fixed {
        min: -512,
        max: 512,
        per_unit: 64,
    });
    Schema::new(vec![
        kind("phalanx.owner", FieldSchema::new("0", ExactType::U8)),
        kind("place", place),
    ])
    .expect("the schema is sound")
}

/// Entities whose places change, and who publishes them.
struct World {
    publisher: Publisher,
    places: Vec<[f32; 3]>,
    /// Whether the first entity is a player's.
    has_hero: bool,
    prng: Prng,
    snapshot: Snapshot,
}

impl World {
    fn new(schema: &Schema, entities: u32, budget_bytes_per_second: u32, seed: u64) -> Self {
        let config = PublisherConfig {
            snapshot_ticks: SNAPSHOT_TICKS,
            rate: TickRate::DEFAULT,
            budget_bytes_per_second,
        };
        Self {
            publisher: Publisher::new(schema, config),
            places: vec![[0.0; 3]; entities as usize],
            has_hero: false,
            prng: Prng::new(seed),
            snapshot: Snapshot {
                tick: Tick::ZERO,
                kinds: vec![KindRows::default(); 2],
            },
        }
    }

    /// On every third tick: changes the place of each entity, by its number, and publishes them.
    fn step(&mut self, tick: u32, mut change: impl FnMut(&mut Prng, u32, &mut [f32; 3])) {
        if !tick.is_multiple_of(SNAPSHOT_TICKS) {
            return;
        }
        let snapshot = &mut self.snapshot;
        snapshot.tick = Tick::new(tick);
        snapshot.kinds.iter_mut().for_each(KindRows::clear);
        for (number, place) in (1..).zip(&mut self.places) {
            let id = NetId::new(Term(1), number);
            if number == 1 && self.has_hero {
                snapshot.kinds[0].push(id, |out| out.push(1));
            }
            change(&mut self.prng, number, place);
            snapshot.kinds[1].push(id, |out| {
                place.iter().for_each(|part| out.extend(part.to_le_bytes()));
            });
        }
        self.publisher.publish(snapshot);
    }
}

/// Moves at random, by at most `reach` along each axis, and stays within `edge`.
fn wander(prng: &mut Prng, place: &mut [f32; 3], reach: f32, edge: f32) {
    for part in &mut place[..2] {
        *part = (*part + prng.range_f32(-reach, reach)).clamp(-edge, edge);
    }
}

struct Client {
    subscription: Subscription,
    receiver: Receiver,
    under_way: VecDeque<(u32, Seq, bool)>,
    seq: u32,
}

impl Client {
    fn new(schema: &Schema, number: u16) -> Self {
        Self {
            subscription: Subscription::new(Viewer {
                member: MemberId(u64::from(number)),
                slot: (number == PLAYER).then_some(Slot(1)),
                ..Viewer::default()
            }),
            receiver: Receiver::new(schema, SNAPSHOT_TICKS),
            under_way: VecDeque::new(),
            seq: 0,
        }
    }

    /// It gets everything at once.
    fn join(&mut self, publisher: &mut Publisher) {
        let keyframe = self.subscription.keyframe(publisher);
        let keyframe = keyframe.expect("something was published");
        let installed = self.receiver.install_keyframe(&keyframe.bytes);
        assert!(installed.is_ok(), "{installed:?}");
        self.subscription.keyframe_held(publisher);
    }

    fn step(&mut self, publisher: &mut Publisher, tick: u32, ack_ticks: u32, loses: bool) {
        let mut is_due = self.subscription.begin_tick(publisher);
        while is_due {
            let mut body = Vec::new();
            let seq = Seq::new(self.seq);
            self.seq += 1;
            self.subscription.write(publisher, seq, 1100, &mut body);
            if !loses && !body.is_empty() {
                let read = self.receiver.read(Tick::new(tick), &body);
                assert!(read.is_ok(), "{read:?}");
            }
            self.under_way.push_back((tick, seq, loses));
            is_due = self.subscription.has_more();
        }
        while let Some(&(sent, seq, is_lost)) = self.under_way.front()
            && sent + ack_ticks <= tick
        {
            self.under_way.pop_front();
            if is_lost {
                self.subscription.on_lost(seq);
            } else {
                self.subscription.on_ack(seq);
            }
        }
    }

    /// The age of what it knows of the entity that it heard of longest ago, and of the first one.
    fn ages(&self, tick: u32) -> (u32, u32) {
        let newest = self.receiver.newest().expect("it holds something");
        let held = self.receiver.at(newest).expect("it holds something");
        assert_eq!(held.len(), ENTITIES as usize);
        let told = |index| self.receiver.told_at(newest, index).expect("it was told");
        let age = |index| tick - told(index).number();
        ((0..held.len()).map(age).max().unwrap_or(0), age(0))
    }
}

#[test]
fn a_world_beyond_the_budget_goes_round_and_nobody_waits_for_long() {
    let schema = schema();
    let mut world = World::new(&schema, ENTITIES, 16_000, 3);
    world.has_hero = true;
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| Client::new(&schema, number))
        .collect();
    let mut before = *world.publisher.statistics();
    for tick in 0..900 {
        world.step(tick, |prng, _, place| wander(prng, place, 0.5, 500.0));
        for (number, client) in (0_u16..).zip(&mut clients) {
            let joins_at = if number == LATE { 201 } else { 0 };
            if tick == joins_at {
                client.join(&mut world.publisher);
            }
            if tick >= joins_at {
                let ack_ticks = if number == FAR { 11 } else { 6 };
                let loses = number == LOSER && world.prng.below(16) == 0;
                client.step(&mut world.publisher, tick, ack_ticks, loses);
            }
        }
        if tick == 450 {
            before = *world.publisher.statistics();
        }
        if tick > 450 && tick % 50 == 0 {
            for (number, client) in (0_u16..).zip(&clients) {
                let (oldest, first) = client.ages(tick);
                // A round takes some 5 snapshots.
                assert!(oldest <= 90, "client {number}: {oldest} ticks at {tick}");
                if number == PLAYER {
                    assert!(first <= 6, "its own: {first} ticks at {tick}");
                }
            }
        }
    }
    let after = world.publisher.statistics();
    let made = after.parts_made - before.parts_made;
    let shared = after.parts_shared - before.parts_shared;
    // A player's own entity has a body of its own, and who lost something gets that again.
    assert!(
        shared > 2 * made,
        "{made} bodies were made and {shared} shared"
    );
}

/// The longest that a client waits for the newest value of an entity, in ticks, with a budget of so
/// many bytes per snapshot, and the mean of the bytes that a snapshot takes. `is_dear` says which
/// entities cost much.
fn longest_wait(budget: u32, has_interest: bool, is_dear: fn(u32) -> bool) -> (u32, u64) {
    let schema = schema();
    let mut world = World::new(&schema, ENTITIES, budget * 20, 5);
    world
        .publisher
        .set_interest(has_interest.then(|| Interest::within(400.0)));
    let mut client = Client::new(&schema, 0);
    client.subscription.viewer_mut().viewpoints.push([0.0; 3]);
    let mut longest = 0;
    let mut bytes_before = 0;
    for tick in 0..450_u16 {
        world.step(tick.into(), |prng, number, place| {
            if is_dear(number) {
                wander(prng, place, 0.5, 200.0);
            } else {
                place[0] = f32::from(tick) / 64.0;
            }
        });
        if tick == 0 {
            client.join(&mut world.publisher);
        }
        client.step(&mut world.publisher, tick.into(), 5, false);
        if tick == 149 {
            bytes_before = client.subscription.statistics().bytes;
        }
        if tick >= 150 {
            longest = longest.max(client.ages(tick.into()).0);
        }
    }
    let bytes = client.subscription.statistics().bytes - bytes_before;
    (longest, bytes / 100)
}

#[test]
fn where_the_world_nearly_fits_nobody_is_left_out() {
    let mut saw_room = false;
    for has_interest in [false, true] {
        // The first half of the entities costs more than the second.
        for budget in [1500, 1950, 2100, 2250, 2700] {
            let is_dear = |number| number <= ENTITIES / 2;
            let (longest, bytes) = longest_wait(budget, has_interest, is_dear);
            assert!(
                longest <= 15,
                "budget {budget}, interest {has_interest}: {longest} ticks, {bytes} bytes"
            );
            saw_room |= bytes + 100 < u64::from(budget);
        }
    }
    assert!(saw_room, "one of the budgets is more than it takes");
}

/// Bodies per second that a client gets, whole ones and others, when its world calms down after a
/// time in which it took far more than its budget of so many bytes per snapshot.
fn bodies_after_a_storm(budget: u32) -> (u64, u64, u64) {
    let schema = schema();
    let mut world = World::new(&schema, 600, budget * 20, 6);
    let mut client = Client::new(&schema, 0);
    let mut before = *client.subscription.statistics();
    for tick in 0..900_u32 {
        if tick == 600 {
            before = *client.subscription.statistics();
        }
        let reach = if tick < 150 { 90.0 } else { 0.25 };
        world.step(tick, |prng, _, place| wander(prng, place, reach, 200.0));
        if tick == 0 {
            client.join(&mut world.publisher);
        }
        client.step(&mut world.publisher, tick, 6, false);
    }
    let after = client.subscription.statistics();
    let whole = after.whole - before.whole;
    (
        whole / 5,
        (after.parts - before.parts) / 5,
        (after.bytes - before.bytes) / 100,
    )
}

#[test]
fn whole_bodies_follow_as_soon_as_they_fit() {
    // Far more than it takes, and the least with which whole bodies fit.
    let (whole, parts, bytes) = bodies_after_a_storm(6000);
    assert!(
        whole >= 20 && parts == 0,
        "{whole} and {parts} bodies, {bytes} bytes"
    );
    let budget = u32::try_from(bytes * 5 / 4).expect("a small number");
    let (whole, parts, bytes) = bodies_after_a_storm(budget);
    assert!(
        whole >= 20 && parts == 0,
        "budget {budget}: {whole} and {parts} bodies, {bytes} bytes"
    );
}
