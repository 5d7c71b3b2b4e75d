//! A toy game for state-sync: bodies in a yard that move, appear and go, and one hero per slot.
//!
//! Values lie on the steps of their wire form, so that nothing is lost on the way to clients. The
//! host's secret (a random state) decides what no client can predict.

mod pusher;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;

use phalanx::netcode::id::{NetId, Slot, Term};
use phalanx::netcode::input::InputFrame;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{GameInfo, Mode};
use phalanx::netcode::simulation::{
    AUTHORITY_KIND, ClaimRefused, OWNER_KIND, Simulation, StepKind,
};
use phalanx::netcode::state::{
    ExactType, FieldSchema, ImportError, KindSchema, KindShape, Patch, Schema, Snapshot, StateHash,
    Visibility, WireForm,
};
use phalanx::netcode::tick::{Tick, TickRate};

pub use self::pusher::Pusher;
pub use self::session::{Cluster, cluster, host, player, spectator, statistics};

/// Bytes of an input: one, whose two low bits push the hero, and whose third stops it.
pub const INPUT_BYTES: u8 = 1;

/// The bit of an input that stops the hero.
const STOP: u8 = 4;

/// Steps of a position per unit.
const PER_UNIT: i32 = 64;
/// Positions lie between this and its negative, in steps.
const EDGE: i32 = 200 * PER_UNIT;

/// The toy game's description, in state-sync mode.
///
/// # Panics
/// Never: its schema is fixed and fits the limits.
#[must_use]
pub fn game() -> GameInfo {
    let field = |name| {
        FieldSchema::new(name, ExactType::Vec2).wire(WireForm::Fixed {
            min: -200,
            max: 200,
            per_unit: 64,
        })
    };
    let speed =
        |name| FieldSchema::new(name, ExactType::I32).wire(WireForm::Range { min: -64, max: 64 });
    let kind = |name: &str, shape, visibility, fields| KindSchema {
        name: name.to_owned(),
        version: 1,
        shape,
        visibility,
        fields,
    };
    let schema = Schema::new(vec![
        kind(
            "Body",
            KindShape::Component,
            Visibility::Client,
            vec![field("at").position(), speed("vx"), speed("vy")],
        ),
        kind(
            "Mark",
            KindShape::Component,
            Visibility::Client,
            vec![FieldSchema::new("hits", ExactType::U16)],
        ),
        kind(
            "Secret",
            KindShape::Resource,
            Visibility::HostOnly,
            vec![
                FieldSchema::new("state", ExactType::U64),
                FieldSchema::new("term", ExactType::U32),
                FieldSchema::new("next", ExactType::U32),
            ],
        ),
        kind(
            "Weather",
            KindShape::Resource,
            Visibility::Client,
            vec![FieldSchema::new("wind", ExactType::I32)],
        ),
        kind(
            OWNER_KIND,
            KindShape::Component,
            Visibility::Client,
            vec![FieldSchema::new("slot", ExactType::U8)],
        ),
        kind(
            AUTHORITY_KIND,
            KindShape::Component,
            Visibility::Client,
            vec![FieldSchema::new("slot", ExactType::U8)],
        ),
    ]);
    GameInfo {
        game: "yard".to_owned(),
        build: "1".to_owned(),
        schema: Arc::new(schema.expect("the toy's schema fits the limits")),
        mode: Mode::StateSync,
        tick_rate: TickRate::DEFAULT,
        input_bytes: INPUT_BYTES,
    }
}

/// One entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Position in steps of 1/64.
    pub at: [i32; 2],
    /// Steps per tick.
    pub speed: [i32; 2],
    /// Whose it is.
    pub owner: Option<u8>,
    /// Whose client decides it, if not the host.
    pub decider: Option<u8>,
    /// A component that comes and goes.
    pub hits: Option<u16>,
}

/// What a yard is made with.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bodies without an owner at the start.
    pub bodies: u32,
    /// Whether bodies appear and go, marks come and go, and the wind changes.
    pub is_lively: bool,
    /// Ticks between two gusts that push all heroes, which no client can foresee; 0 for none.
    pub gust_ticks: u32,
    /// Ticks after which another one decides the first body: the host, slot 0, slot 1, and again;
    /// 0 for the host at all times.
    pub term_ticks: u32,
    /// Whether a lively yard gets new bodies: their ids tell who hosted when they appeared.
    pub spawns: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            bodies: 12,
            is_lively: true,
            gust_ticks: 0,
            term_ticks: 0,
            spawns: true,
        }
    }
}

/// The state, and what happened to it.
#[derive(Clone, Debug)]
pub struct Yard {
    schema: Arc<Schema>,
    state: State,
    plan: Plan,
    /// On a client that predicts: its slot. Only its hero moves there.
    predicts: Option<u8>,
    /// Steps by kind: for the first time, again.
    pub steps: [u64; 2],
    /// Patches that were taken over.
    pub patches: u64,
    /// What others see, as told last: by slot.
    pub seen: BTreeMap<u8, u32>,
    /// Claims that came to the simulation, by slot.
    pub claims: BTreeMap<u8, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    tick: Tick,
    bodies: BTreeMap<u64, Body>,
    wind: i32,
    secret: u64,
    /// The term in which bodies appear now.
    term: u32,
    /// The number of the next one.
    next: u32,
}

/// A saved state.
#[derive(Clone, Debug, Default)]
pub struct YardImage(State);

impl Yard {
    /// The initial state for a session of `slots` slots; `predicts` on a client with a slot.
    #[must_use]
    pub fn new(seed: u64, slots: u8, plan: Plan, predicts: Option<u8>) -> Self {
        let mut prng = Prng::new(seed);
        let mut bodies = BTreeMap::new();
        for slot in 0..slots {
            let hero = Body {
                at: [i32::from(slot) * PER_UNIT, 0],
                owner: Some(slot),
                ..Body::default()
            };
            bodies.insert(u64::from(slot) + 1, hero);
        }
        for index in 0..u64::from(plan.bodies) {
            bodies.insert(100 + index, random_body(&mut prng));
        }
        Self {
            schema: game().schema,
            state: State {
                tick: Tick::ZERO,
                bodies,
                wind: 0,
                secret: prng.next_u64(),
                term: 0,
                next: 100 + plan.bodies,
            },
            plan,
            predicts,
            steps: [0; 2],
            patches: 0,
            seen: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// Whether this is the state of the session, and not what a client continues of it.
    #[must_use]
    pub const fn is_authority(&self) -> bool {
        self.predicts.is_none()
    }

    /// The bodies by number.
    #[must_use]
    pub fn bodies(&self) -> &BTreeMap<u64, Body> {
        &self.state.bodies
    }

    /// The hero of `slot`.
    #[must_use]
    pub fn hero(&self, slot: u8) -> Option<&Body> {
        self.state.bodies.get(&(u64::from(slot) + 1))
    }

    /// The resource that clients see.
    #[must_use]
    pub fn wind(&self) -> i32 {
        self.state.wind
    }

    /// What happens by the host's will alone.
    fn live(&mut self) {
        let mut prng = Prng::new(self.state.secret ^ u64::from(self.state.tick.number()));
        let state = &mut self.state;
        let (number, term) = (state.tick.number(), self.plan.term_ticks);
        if term > 0
            && number.is_multiple_of(term)
            && let Some(first) = state.bodies.get_mut(&100)
        {
            first.decider = [None, Some(0), Some(1)][(number / term % 3) as usize];
            first.speed = [0; 2];
        }
        let is_here = |it: &&mut Body| it.owner.is_none() && it.decider.is_none();
        for body in state.bodies.values_mut().filter(is_here) {
            if prng.below(40) == 0 {
                body.speed = random_speed(&mut prng);
            }
            fly(body);
        }
        if self.plan.gust_ticks > 0 && state.tick.number().is_multiple_of(self.plan.gust_ticks) {
            for body in state.bodies.values_mut().filter(|it| it.owner.is_some()) {
                body.speed = random_speed(&mut prng);
            }
        }
        if !self.plan.is_lively {
            return;
        }
        if prng.below(10) == 0 && self.plan.spawns {
            let id = u64::from(state.term) << 32 | u64::from(state.next);
            state.next += 1;
            state.bodies.insert(id, random_body(&mut prng));
        }
        let ids: Vec<u64> = state.bodies.range(100..).map(|(id, _)| *id).collect();
        if ids.len() as u64 > u64::from(self.plan.bodies) {
            let at = usize::try_from(prng.below(ids.len() as u64)).expect("small");
            state.bodies.remove(&ids[at]);
        }
        for body in state.bodies.values_mut() {
            match (prng.below(50), body.hits) {
                (0, None) => body.hits = Some(1),
                (0, Some(_)) => body.hits = None,
                (1..=5, Some(hits)) => body.hits = Some(hits.wrapping_add(1)),
                _ => {}
            }
        }
        if prng.below(30) == 0 {
            state.wind = below(&mut prng, 101) - 50;
        }
        state.secret = prng.next_u64();
    }

    fn snapshot(&self, state: &State) -> Snapshot {
        let mut snapshot = Snapshot {
            tick: state.tick,
            kinds: vec![Default::default(); 6],
        };
        let kinds = &mut snapshot.kinds;
        for (&id, body) in &state.bodies {
            let id = NetId::from_bits(id);
            kinds[0].push(id, |out| {
                for step in body.at {
                    out.extend(to_float(step).to_le_bytes());
                }
                for speed in body.speed {
                    out.extend(speed.to_le_bytes());
                }
            });
            if let Some(hits) = body.hits {
                kinds[1].push(id, |out| out.extend(hits.to_le_bytes()));
            }
            if let Some(owner) = body.owner {
                kinds[5].push(id, |out| out.push(owner));
            }
            if let Some(decider) = body.decider {
                kinds[4].push(id, |out| out.push(decider));
            }
        }
        kinds[2].push(NetId::NONE, |out| {
            out.extend(state.secret.to_le_bytes());
            out.extend(state.term.to_le_bytes());
            out.extend(state.next.to_le_bytes());
        });
        kinds[3].push(NetId::NONE, |out| out.extend(state.wind.to_le_bytes()));
        snapshot
    }
}

impl Simulation for Yard {
    type Image = YardImage;

    fn become_authority(&mut self) {
        self.predicts = None;
    }

    fn begin_term(&mut self, term: Term) {
        (self.state.term, self.state.next) = (term.0, 100);
    }

    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn tick(&self) -> Tick {
        self.state.tick
    }

    fn step(&mut self, frame: &InputFrame, kind: StepKind) {
        assert_eq!(frame.tick(), self.state.tick.next(), "ticks come in order");
        self.state.tick = frame.tick();
        self.steps[usize::from(kind == StepKind::Again)] += 1;
        for body in self.state.bodies.values_mut() {
            if body.decider.is_some() && body.decider == self.predicts {
                // What the host could not know: it counts the steps of its client.
                body.at = [wrapped(body.at[0] + 1), body.at[1]];
                continue;
            }
            let Some(owner) = body.owner else { continue };
            if self.predicts.is_some_and(|slot| slot != owner) {
                continue;
            }
            if let Some(&[push, ..]) = frame.input(Slot(owner)) {
                if push & STOP != 0 {
                    body.speed = [0; 2];
                    continue;
                }
                for (axis, speed) in body.speed.iter_mut().enumerate() {
                    let step = if push & (1 << axis) == 0 { -1 } else { 1 };
                    *speed = (*speed + step).clamp(-64, 64);
                }
            }
            fly(body);
        }
        if self.predicts.is_none() {
            self.live();
        }
    }

    fn hash(&mut self, out: &mut StateHash) {
        *out = self.snapshot(&self.state).hash(&self.schema);
    }

    fn capture(&mut self, image: &mut YardImage) {
        image.0.clone_from(&self.state);
    }

    fn restore(&mut self, image: &YardImage) {
        self.state.clone_from(&image.0);
    }

    fn hash_image(&self, image: &YardImage, out: &mut StateHash) {
        *out = self.snapshot(&image.0).hash(&self.schema);
    }

    fn export(&self, image: &YardImage) -> Snapshot {
        self.snapshot(&image.0)
    }

    fn import(&mut self, snapshot: &Snapshot) -> Result<(), ImportError> {
        snapshot.validate(&self.schema)?;
        self.patches += 1;
        let [bodies, marks, secret, weather, deciders, owners] = &snapshot.kinds[..] else {
            return Err(ImportError::KindCount {
                found: snapshot.kinds.len(),
                expected: 6,
            });
        };
        let word = |bytes: &[u8]| i32::from_le_bytes(bytes.try_into().expect("validated"));
        let mut state = State {
            tick: snapshot.tick,
            ..State::default()
        };
        for (id, row) in bodies.rows() {
            let step = |bytes: &[u8]| to_steps(f32::from_le_bytes(bytes.try_into().expect("four")));
            let body = Body {
                at: [step(&row[..4]), step(&row[4..8])],
                speed: [word(&row[8..12]), word(&row[12..16])],
                owner: owners.find(id).map(|row| row[0]),
                decider: deciders.find(id).map(|row| row[0]),
                hits: marks
                    .find(id)
                    .map(|row| u16::from_le_bytes([row[0], row[1]])),
            };
            state.bodies.insert(id.bits(), body);
        }
        if let Some(row) = secret.find(NetId::NONE) {
            let half = |at: usize| row[at..at + 4].try_into().expect("validated");
            state.secret = u64::from_le_bytes(row[..8].try_into().expect("validated"));
            state.term = u32::from_le_bytes(half(8));
            state.next = u32::from_le_bytes(half(12));
        }
        if let Some(row) = weather.find(NetId::NONE) {
            state.wind = word(row);
        }
        self.state = state;
        Ok(())
    }

    fn claim(&mut self, slot: Slot, id: NetId, patch: &Patch) -> Result<(), ClaimRefused> {
        *self.claims.entry(slot.0).or_default() += 1;
        let body = self.state.bodies.get(&id.bits());
        if body.is_none_or(|body| body.decider != Some(slot.0)) {
            return Err(ClaimRefused);
        }
        self.overwrite(patch).map_err(|_unfit| ClaimRefused)
    }

    fn seen(&mut self, slot: Slot, behind_ticks: u32) {
        self.seen.insert(slot.0, behind_ticks);
    }
}

fn below(prng: &mut Prng, limit: i32) -> i32 {
    let limit = u64::try_from(limit).expect("positive");
    i32::try_from(prng.below(limit)).expect("below an i32")
}

fn random_speed(prng: &mut Prng) -> [i32; 2] {
    [0; 2].map(|_: i32| below(prng, 65) - 32)
}

fn random_body(prng: &mut Prng) -> Body {
    Body {
        at: [0; 2].map(|_: i32| below(prng, 2 * EDGE + 1) - EDGE),
        speed: random_speed(prng),
        ..Body::default()
    }
}

/// Moves, and turns back at the edges.
fn fly(body: &mut Body) {
    for (at, speed) in body.at.iter_mut().zip(&mut body.speed) {
        *at += *speed;
        if at.abs() > EDGE {
            *at = (*at).clamp(-EDGE, EDGE);
            *speed = -*speed;
        }
    }
}

/// Goes round within the edges.
fn wrapped(at: i32) -> i32 {
    if at > EDGE { -EDGE } else { at }
}

fn to_float(steps: i32) -> f32 {
    let steps = i16::try_from(steps).expect("within the edges");
    f32::from(steps) / 64.0
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "within the edges, and whole"
)]
fn to_steps(value: f32) -> i32 {
    (value * 64.0) as i32
}
