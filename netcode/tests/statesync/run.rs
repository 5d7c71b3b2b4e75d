//! A host, its clients and their paths, all from one seed, and what must hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use phalanx_netcode::delta::Projection;
use phalanx_netcode::id::{MemberId, NetId, Slot};
use phalanx_netcode::limits::STATE_RING_SNAPSHOTS;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{EntityRef, QuantizedSnapshot, Schema, Shape, Shapes, WireLayout};
use phalanx_netcode::statesync::{
    Interest, Publisher, PublisherConfig, ReadError, Receiver, Subscription, Viewer, VisibilityRule,
};
use phalanx_netcode::tick::{Seq, Tick, TickRate};

use super::channel::{Channel, Faults};
use super::client::{Client, Down};
use super::world::{self, World};

/// Bytes of state that a datagram has room for whatever else is in it: there is one per tick.
pub(crate) const DATAGRAM_BYTES: u32 = 880;

/// Ticks without a datagram, at most.
const CALM_TICKS: u32 = 12;

pub(crate) struct Run {
    pub(crate) schema: Arc<Schema>,
    pub(crate) publisher: Publisher,
    pub(crate) clients: Vec<Client>,
    pub(crate) world: World,
    truth: BTreeMap<Tick, Arc<QuantizedSnapshot>>,
    pub(crate) prng: Prng,
    pub(crate) tick: u32,
    pub(crate) snapshot_ticks: u32,
    pub(crate) latency: u32,
    interest: Option<Interest>,
    has_rule: bool,
    pub(crate) is_generous: bool,
    projection: Projection,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let mut prng = Prng::with_stream(seed, 1);
        let schema = Arc::new(world::schema());
        let snapshot_ticks = [1, 2, 3, 3, 3, 6][below(&mut prng, 6)];
        let is_generous = prng.below(2) == 0;
        let budget_bytes_per_second = if is_generous {
            2_000_000
        } else {
            3_000 + u32::try_from(prng.below(40_000)).unwrap()
        };
        let mut publisher = Publisher::new(
            &schema,
            PublisherConfig {
                snapshot_ticks,
                rate: TickRate::DEFAULT,
                budget_bytes_per_second,
            },
        );
        let interest = (prng.below(2) == 0).then(|| Interest::within(prng.range_f32(5.0, 40.0)));
        publisher.set_interest(interest);
        let has_rule = prng.below(3) == 0;
        if has_rule {
            let health = schema.kind_index("health").unwrap();
            publisher.set_rule(Some(Box::new(Secrets {
                health: u16::try_from(health).unwrap(),
            })));
        }
        let latency = u32::try_from(prng.below(10)).unwrap();
        let count = 1 + below(&mut prng, 4);
        let clients = (0..count)
            .map(|index| {
                let index = u8::try_from(index).unwrap();
                let is_player = prng.below(2) == 0;
                let spot = (!is_player && prng.below(2) == 0).then(|| world::place(&mut prng));
                let viewer = Viewer {
                    member: MemberId(u64::from(index)),
                    slot: is_player.then_some(Slot(index)),
                    viewpoints: spot.into_iter().collect(),
                    rooms: vec![0],
                };
                let sees_all = interest.is_none() && !has_rule;
                Client {
                    sees_all: sees_all && !world::HAS_ROOMS,
                    spot: spot.filter(|_| interest.is_some()),
                    subscription: Subscription::new(viewer),
                    receiver: Receiver::new(&schema, snapshot_ticks),
                    down: Channel::new(prng.next_u64(), latency),
                    up: Channel::new(prng.next_u64(), latency),
                    next_seq: 0,
                    answered: 0,
                    waiting: Vec::new(),
                    received: None,
                    transfer: None,
                    transferred: None,
                    sent: Vec::new(),
                    calm_ticks: 0,
                }
            })
            .collect();
        let size = if prng.below(4) == 0 { 400 } else { 60 };
        Self {
            world: World::new(&schema, Prng::with_stream(seed, 2), size),
            schema,
            publisher,
            clients,
            truth: BTreeMap::new(),
            prng,
            tick: 0,
            snapshot_ticks,
            latency,
            interest,
            has_rule,
            is_generous,
            projection: Projection::default(),
        }
    }

    pub(crate) fn draw_faults(&mut self) {
        for at in 0..self.clients.len() {
            let faults = [Faults::draw(&mut self.prng), Faults::draw(&mut self.prng)];
            let client = &mut self.clients[at];
            client.down.faults = faults[0];
            client.up.faults = faults[1];
        }
    }

    pub(crate) fn step(&mut self) {
        if self.tick.is_multiple_of(self.snapshot_ticks) {
            let snapshot = self.world.snapshot(Tick::new(self.tick));
            self.publisher.publish(&snapshot);
            let held = self.publisher.at(Tick::new(self.tick)).unwrap();
            self.truth.insert(Tick::new(self.tick), Arc::clone(held));
        }
        for at in 0..self.clients.len() {
            self.step_client(at);
        }
        self.tick += 1;
        self.world.step();
    }

    fn step_client(&mut self, at: usize) {
        let now = self.tick;
        let client = &mut self.clients[at];
        // Host.
        for up in client.up.take(now) {
            client.take_report(up);
        }
        if client.transferred.is_some_and(|due| due <= now) {
            client.transferred = None;
            client.subscription.keyframe_held(&self.publisher);
        }
        let may_transfer = client.transfer.is_none() && client.transferred.is_none();
        if may_transfer
            && client.subscription.needs_keyframe()
            && let Some(keyframe) = client.subscription.keyframe(&mut self.publisher)
        {
            client.transfer = Some((now + self.latency * 2 + 5, keyframe.bytes));
        }
        let has_news = client.subscription.begin_tick(&mut self.publisher);
        client.calm_ticks += 1;
        // Something else has to be said now and then.
        let mut is_due = has_news || client.calm_ticks >= CALM_TICKS || self.prng.below(20) == 0;
        client.sent.clear();
        while is_due {
            let seq = client.next_seq;
            client.next_seq += 1;
            client.waiting.push(seq);
            let mut body = Vec::new();
            // Control messages take their room now and then.
            let room = match self.prng.below(16) {
                0 => 880,
                _ => 1060 + below(&mut self.prng, 66),
            };
            client
                .subscription
                .write(&mut self.publisher, Seq::new(seq), room, &mut body);
            assert!(body.len() <= room, "{} in {room}", body.len());
            let sent_at = Tick::new(now);
            client.sent.clone_from(&body);
            client.down.send(now, Down { seq, sent_at, body });
            client.calm_ticks = 0;
            is_due = client.subscription.has_more();
        }
        // Client.
        if let Some((due, bytes)) = &client.transfer
            && *due <= now
        {
            let installed = client.receiver.install_keyframe(bytes);
            assert!(
                matches!(installed, Ok(_) | Err(ReadError::OldEpoch)),
                "{installed:?}"
            );
            client.transferred = Some(now + self.latency + 1);
            client.transfer = None;
        }
        let mut is_news = false;
        for down in client.down.take(now) {
            is_news |= client.take_datagram(&down);
        }
        if let Some(report) = client.received {
            client.up.send(now, report);
        }
        let held = client.receiver.ticks().count();
        assert!(
            held <= STATE_RING_SNAPSHOTS as usize + 1,
            "{held} snapshots are held"
        );
        // Checking is slower than what is checked.
        if is_news && self.prng.below(3) == 0 {
            self.check_safety(at);
        }
    }

    /// What is held was true, and what is complete is.
    fn check_safety(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let receiver = &client.receiver;
        let newest = receiver.newest().unwrap();
        for tick in [Some(newest), receiver.newest_complete()]
            .into_iter()
            .flatten()
        {
            let held = receiver.at(tick).unwrap();
            for (index, entity) in held.entities().enumerate() {
                let told = receiver.told_at(tick, index).unwrap();
                assert!(told <= tick);
                let truth = self.truth[&told].find(entity.id).unwrap_or_else(|| {
                    panic!("client {at}: {} was not there at {told}", entity.id)
                });
                let is_true = is_visible_part(
                    (&self.publisher, truth),
                    (receiver, entity),
                    self.has_rule,
                    &mut self.projection,
                );
                assert!(is_true, "client {at}: {} at {told} is wrong", entity.id);
            }
            if receiver.is_complete(tick) && client.sees_all {
                let truth = &self.truth[&tick];
                let ids = |snapshot: &QuantizedSnapshot| -> Vec<NetId> {
                    snapshot.entities().map(|entity| entity.id).collect()
                };
                assert_eq!(ids(held), ids(truth), "client {at} at {tick}");
            }
        }
    }

    /// The world stands still, and nothing goes wrong any more: every client holds what it should
    /// after `soon` ticks and those that its bytes take at its budget, and after a round trip and
    /// an interval more it knows that it does.
    pub(crate) fn converge(&mut self, soon: u32, round_trip: u32) {
        let from = self.tick;
        let mut waits: Vec<Wait> = (0..self.clients.len())
            .map(|at| Wait {
                bytes: self.bytes_in_view(at),
                per_tick: DATAGRAM_BYTES,
                since: from,
                held: None,
                known: None,
            })
            .collect();
        loop {
            self.step();
            let mut is_over = true;
            for (at, wait) in waits.iter_mut().enumerate() {
                if self.tick <= from + self.snapshot_ticks {
                    wait.bytes = self.bytes_in_view(at);
                }
                let client = &self.clients[at];
                // A transfer takes its own time, and nothing else is sent meanwhile.
                if client.transfer.is_some() || client.transferred.is_some() {
                    wait.since = self.tick;
                }
                // What was lost until now may still lower the budget.
                let per_second = client.subscription.bytes_per_second(&self.publisher);
                wait.per_tick = wait.per_tick.min(per_second / 60).max(1);
                let (holds, knows) = self.has_converged(at);
                wait.held = wait.held.filter(|_| holds).or(holds.then_some(self.tick));
                wait.known = wait.known.filter(|_| knows).or(knows.then_some(self.tick));
                is_over &= self.tick >= wait.known_by(soon, round_trip + self.snapshot_ticks);
            }
            if is_over {
                break;
            }
            assert!(self.tick < from + 60 * 60, "transfers go on and on");
        }
        for (at, wait) in waits.iter().enumerate() {
            let held_by = wait.held_by(soon);
            let known_by = wait.known_by(soon, round_trip + self.snapshot_ticks);
            let is_held = wait.held.is_some_and(|tick| tick <= held_by);
            let is_known = wait.known.is_some_and(|tick| tick <= known_by);
            assert!(
                is_held && is_known,
                "client {at} should hold all by {held_by} and know it by {known_by}, not {wait:?}; \
                 {from}, {:?}",
                self.clients[at].subscription.statistics()
            );
            self.check_interest(at);
        }
    }

    /// Bytes of all that client `at` should hold, if it held nothing.
    pub(crate) fn bytes_in_view(&mut self, at: usize) -> u32 {
        let viewer = self.clients[at].subscription.viewer().clone();
        let keyframe = Subscription::new(viewer).keyframe(&mut self.publisher);
        u32::try_from(keyframe.unwrap().bytes.len()).unwrap()
    }

    /// Whether client `at` holds the present state, which does not change any more, as it should,
    /// and whether it knows that.
    fn has_converged(&mut self, at: usize) -> (bool, bool) {
        let client = &mut self.clients[at];
        let hash = client.subscription.interest_hash(&mut self.publisher);
        let (tick, hash) = hash.unwrap();
        let receiver = &client.receiver;
        let is_right =
            |held: Option<Tick>| held.is_some_and(|at| receiver.hash_at(at) == Some(hash));
        let complete = receiver.newest_complete();
        let late = complete.map_or(u32::MAX, |complete| tick.since(complete));
        let is_recent = late <= self.latency + self.snapshot_ticks + CALM_TICKS;
        (is_right(receiver.newest()), is_right(complete) && is_recent)
    }

    /// What is in view is what should be, by distance.
    fn check_interest(&self, at: usize) {
        let client = &self.clients[at];
        let tick = client.receiver.newest().unwrap();
        let held = client.receiver.at(tick).unwrap();
        let truth = &self.truth[&tick];
        if client.sees_all {
            assert_eq!(held.len(), truth.len());
        }
        let (Some(spot), Some(interest)) = (client.spot, self.interest) else {
            return;
        };
        for (id, place, room) in self.world.places() {
            let [x, y, z] = [0, 1, 2].map(|axis| place[axis] - spot[axis]);
            let distance = (x * x + y * y + z * z).sqrt();
            let is_held = held.find(id).is_some();
            let may_see = room.is_none_or(|room| room == 0);
            if distance > interest.leave_radius + 0.1 || !may_see {
                assert!(!is_held, "client {at} sees {id} at {distance}");
            } else if distance < interest.radius - 0.1 && !self.has_rule {
                assert!(is_held, "client {at} does not see {id} at {distance}");
            }
        }
    }
}

/// Hides the health of others, and some entities from some.
#[derive(Debug)]
struct Secrets {
    health: u16,
}

impl VisibilityRule for Secrets {
    fn hidden(&self, viewer: &Viewer, entity: &EntityRef<'_>, shape: &Shape) -> Option<u64> {
        let mine = viewer.member.0;
        if entity.id.bits() % 7 == mine && entity.lanes.first().is_some_and(|lane| lane % 5 == 0) {
            return None;
        }
        let place = shape.kinds.iter().position(|&kind| kind == self.health);
        Some(match place {
            Some(place) if entity.id.bits() % 3 != mine % 3 => 1 << place,
            _ => 0,
        })
    }
}

/// How long a client waits for what it should hold.
#[derive(Debug)]
struct Wait {
    /// Bytes of all of it in one piece, and bytes per tick that its budget and its datagrams allow.
    bytes: u32,
    per_tick: u32,
    since: u32,
    /// Since when it holds it, and knows that.
    held: Option<u32>,
    known: Option<u32>,
}

impl Wait {
    fn held_by(&self, soon: u32) -> u32 {
        self.since + soon + (self.bytes + DATAGRAM_BYTES).div_ceil(self.per_tick)
    }

    fn known_by(&self, soon: u32, more: u32) -> u32 {
        self.held_by(soon) + more
    }
}

/// Whether what a client has of an entity is what it may see of it.
fn is_visible_part(
    (publisher, truth): (&Publisher, EntityRef<'_>),
    (receiver, held): (&Receiver, EntityRef<'_>),
    may_hide: bool,
    projection: &mut Projection,
) -> bool {
    let (layout, shapes): (&WireLayout, &Shapes) = (publisher.layout(), publisher.shapes());
    let all = &shapes.get(truth.shape).kinds;
    let kinds = &receiver.shapes().get(held.shape).kinds;
    let mut hidden = 0;
    for (place, kind) in all.iter().enumerate() {
        if !kinds.contains(kind) {
            hidden |= 1 << place;
        }
    }
    if hidden != 0 && !may_hide {
        return false;
    }
    projection.take(layout, shapes, &truth, hidden);
    projection.kinds[..] == kinds[..]
        && projection.lanes == held.lanes
        && projection.opaque == held.opaque
}

pub(crate) fn below(prng: &mut Prng, bound: u64) -> usize {
    usize::try_from(prng.below(bound)).unwrap()
}
