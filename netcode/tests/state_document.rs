//! A host tells a client its states over a path that loses some, and a reader of state bodies that
//! was written from `docs/WIRE.md` alone follows it. It shares no code with the crate's decoder; a
//! difference between the two is an error in one of them or in the document.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking, and the document's arithmetic is that of processors"
)]

#[path = "state_document/body.rs"]
mod body;
#[path = "state_document/coder.rs"]
mod coder;
#[path = "state_document/layout.rs"]
mod layout;
#[path = "state_document/recorded.rs"]
mod recorded;
#[path = "state_document/rotation.rs"]
mod rotation;

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::sync::Arc;

use phalanx_netcode::delta;
use phalanx_netcode::id::{MemberId, NetId, SessionId, Slot};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::replay::{Header, Mode, Writer};
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindSchema, KindShape, Prediction, QuantizedSnapshot, Quantizer,
    Schema, Shapes, Snapshot, Visibility, WireForm, WireLayout,
};
use phalanx_netcode::statesync::{Publisher, PublisherConfig, Subscription, Viewer};
use phalanx_netcode::tick::{Seq, Tick, TickRate};

use body::{Document, Entity, Held, State};
use coder::{Tables, Wrong};
use layout::{FLAGS, Group, HALVES, IDS, Kind, NUMBERS, VECTORS};

const SNAPSHOT_TICKS: u32 = 3;

fn schema() -> Schema {
    let kind = |name: &str, visibility, fields| KindSchema {
        name: name.to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility,
        fields,
    };
    let fixed = |edge: i32, per_unit| WireForm::Fixed {
        min: -edge,
        max: edge,
        per_unit,
    };
    let field = FieldSchema::new;
    Schema::new(vec![
        kind(
            "Body",
            Visibility::Client,
            vec![
                field("place", ExactType::Vec3)
                    .wire(fixed(256, 128))
                    .position(),
                field("turn", ExactType::Quat).wire(WireForm::Rotation { bits: 9 }),
                field("speed", ExactType::Vec2).wire(fixed(32, 64)),
            ],
        ),
        kind(
            "Health",
            Visibility::Client,
            vec![
                field("points", ExactType::U16).wire(WireForm::Range { min: 0, max: 500 }),
                field("shield", ExactType::Bool),
                field("kills", ExactType::U8).predicted(Prediction::Last),
                field("heat", ExactType::F32),
            ],
        ),
        kind(
            "Link",
            Visibility::Client,
            vec![
                field("to", ExactType::NetId),
                field("mark", ExactType::U64),
                field("note", ExactType::Text),
            ],
        ),
        kind(
            "Secret",
            Visibility::HostOnly,
            vec![field("plan", ExactType::U32)],
        ),
    ])
    .unwrap()
}

/// The same by the document, chapter 9.1.
fn kinds() -> Vec<Option<Kind>> {
    let (low, high) = (i64::from(i32::MIN), i64::from(i32::MAX));
    let half = |class| Group::new(class, 1, low, high);
    let kind = |groups, is_opaque| Some(Kind { groups, is_opaque });
    vec![
        kind(
            vec![
                Group::new(VECTORS, 3, -256 * 128, 256 * 128).position(128.0),
                Group::rotation(9),
                Group::new(VECTORS, 2, -32 * 64, 32 * 64),
            ],
            false,
        ),
        kind(
            vec![
                Group::new(NUMBERS, 1, 0, 500),
                Group::new(FLAGS, 1, 0, 1),
                Group::new(NUMBERS, 1, 0, 255).last(),
                Group::new(NUMBERS, 1, low, high),
            ],
            false,
        ),
        kind(vec![half(IDS), half(IDS), half(HALVES), half(HALVES)], true),
        None,
    ]
}

/// Something in the test's world.
#[derive(Clone, Default)]
struct Thing {
    place: [f32; 3],
    speed: [f32; 3],
    turn: [f32; 4],
    spin: [f32; 4],
    points: u16,
    kills: u8,
    heat: f32,
    note: Option<(u64, String)>,
    has_health: bool,
}

struct World {
    prng: Prng,
    things: BTreeMap<u64, Thing>,
    next: u64,
    calm: bool,
}

impl World {
    fn new(seed: u64, count: u64) -> Self {
        let mut world = Self {
            prng: Prng::new(seed),
            things: BTreeMap::new(),
            next: 1,
            calm: false,
        };
        for _ in 0..count {
            world.spawn();
        }
        world
    }

    fn spawn(&mut self) {
        let prng = &mut self.prng;
        let spin = prng.range_f32(-0.1, 0.1);
        let thing = Thing {
            place: [(); 3].map(|()| prng.range_f32(-20.0, 20.0)),
            speed: [(); 3].map(|()| prng.range_f32(-0.3, 0.3)),
            turn: [0.0, 0.0, 0.0, 1.0],
            spin: [spin, spin / 2.0, prng.range_f32(-0.1, 0.1), 1.0],
            points: 500,
            has_health: prng.below(3) > 0,
            ..Thing::default()
        };
        self.things.insert(self.next, thing);
        self.next += 1 + prng.below(3);
    }

    fn step(&mut self) {
        if self.calm {
            return;
        }
        for _ in 0..2 {
            if self.prng.below(5) == 0 {
                self.spawn();
            }
        }
        let prng = &mut self.prng;
        if prng.below(4) == 0 && self.things.len() > 4 {
            let nth = usize::try_from(prng.below(self.things.len() as u64)).unwrap();
            let id = *self.things.keys().nth(nth).unwrap();
            self.things.remove(&id);
        }
        for (&id, thing) in &mut self.things {
            // A third stand still.
            if id % 3 == 0 && prng.below(40) > 0 {
                continue;
            }
            for axis in 0..3 {
                thing.place[axis] += thing.speed[axis];
                if thing.place[axis].abs() > 25.0 {
                    thing.speed[axis] = -thing.speed[axis];
                }
            }
            thing.speed[1] += prng.range_f32(-0.02, 0.02);
            thing.turn = product(thing.turn, thing.spin);
            if prng.below(20) == 0 {
                thing.points = thing.points.saturating_sub(7);
                thing.kills = thing.kills.wrapping_add(1);
            }
            thing.heat = thing.heat * 0.9 + prng.range_f32(0.0, 1.0);
            match prng.below(60) {
                0 => thing.note = Some((prng.next_u64(), "note".repeat(id as usize % 4))),
                1 => thing.note = None,
                2 => thing.has_health = !thing.has_health,
                3 => thing.speed = [0.0; 3],
                _ => {}
            }
        }
    }

    fn snapshot(&self, schema: &Schema, tick: u32) -> Snapshot {
        let mut snapshot = Snapshot {
            tick: Tick::new(tick),
            kinds: vec![Default::default(); 4],
        };
        let [body, health, link, secret] =
            ["Body", "Health", "Link", "Secret"].map(|name| schema.kind_index(name).unwrap());
        for (&id, thing) in &self.things {
            let id = NetId::from_bits(id);
            let floats = |out: &mut Vec<u8>, values: &[f32]| {
                values
                    .iter()
                    .for_each(|value| out.extend(value.to_le_bytes()));
            };
            snapshot.kinds[body].push(id, |out| {
                floats(out, &thing.place);
                floats(out, &thing.turn);
                floats(out, &thing.speed[..2]);
            });
            if thing.has_health {
                snapshot.kinds[health].push(id, |out| {
                    out.extend(thing.points.to_le_bytes());
                    out.push(u8::from(thing.points % 2 == 0));
                    out.push(thing.kills);
                    floats(out, &[thing.heat]);
                });
            }
            if let Some((mark, note)) = &thing.note {
                snapshot.kinds[link].push(id, |out| {
                    out.extend((mark % 50).to_le_bytes());
                    out.extend(mark.to_le_bytes());
                    out.extend(u32::try_from(note.len()).unwrap().to_le_bytes());
                    out.extend(note.as_bytes());
                });
            }
            snapshot.kinds[secret].push(id, |out| out.extend([1, 2, 3, 4]));
        }
        snapshot
    }
}

fn product(p: [f32; 4], q: [f32; 4]) -> [f32; 4] {
    let [a, b, c, d] = p;
    let [x, y, z, w] = q;
    let mut all = [
        d * x + a * w + b * z - c * y,
        d * y - a * z + b * w + c * x,
        d * z + a * y - b * x + c * w,
        d * w - a * x - b * y - c * z,
    ];
    let length = all.iter().map(|part| part * part).sum::<f32>().sqrt();
    all.iter_mut().for_each(|part| *part /= length);
    all
}

/// What the crate's snapshot says, in the test's words.
fn state_of(snapshot: &QuantizedSnapshot, shapes: &Shapes, kinds: &[Option<Kind>]) -> State {
    let mut state = State::new();
    for entity in snapshot.entities() {
        let mut ours = Entity {
            opaque: entity.opaque.to_vec(),
            ..Entity::default()
        };
        let mut lanes = entity.lanes.iter().map(|&lane| i64::from(lane));
        for &kind in &*shapes.get(entity.shape).kinds {
            let layout = kinds[usize::from(kind)].as_ref().unwrap();
            let count = layout.groups.iter().map(|group| group.lanes.len()).sum();
            ours.kinds
                .insert(u64::from(kind), lanes.by_ref().take(count).collect());
        }
        assert_eq!(lanes.count(), 0);
        state.insert(entity.id.bits(), ours);
    }
    state
}

/// A receiver by chapters 10.1 to 10.3.
#[derive(Default)]
struct Reader {
    epoch: u8,
    /// What was told of each entity, by snapshot.
    told: BTreeMap<u64, BTreeMap<u32, Option<Entity>>>,
    newest: Option<u32>,
    complete: Option<u32>,
    bodies: BTreeMap<u32, (u8, Option<u8>)>,
    /// Bodies: same, whole, part.
    counts: [u32; 3],
    split: u32,
}

impl Reader {
    fn state_at(&self, number: u32) -> State {
        let known = |(id, told): (&u64, &BTreeMap<u32, Option<Entity>>)| {
            let (_, entity) = told.range(..=number).next_back()?;
            Some((*id, entity.clone()?))
        };
        self.told.iter().filter_map(known).collect()
    }

    fn tell(&mut self, number: u32, id: u64, entity: Option<Entity>) {
        self.told.entry(id).or_default().insert(number, entity);
    }

    /// Tells of all ids from `first` on, before `next`.
    fn tell_range(&mut self, number: u32, first: u64, next: Option<u64>, mut entities: State) {
        let is_in = |id: &u64| *id >= first && next.is_none_or(|next| *id < next);
        let gone: Vec<u64> = self.told.keys().copied().filter(is_in).collect();
        for id in gone {
            let entity = entities.remove(&id);
            self.tell(number, id, entity);
        }
        for (id, entity) in entities {
            self.tell(number, id, Some(entity));
        }
    }

    /// Reads the body of a datagram of this tick.
    fn read(&mut self, document: &Document<'_>, tick: u32, bytes: &[u8]) -> Result<(), Wrong> {
        let [first, low, rest @ ..] = bytes else {
            return Err("a head is two bytes");
        };
        let (epoch, content) = (first & 3, first >> 2 & 3);
        let (is_last, index) = (first >> 4 & 1 == 1, first >> 5);
        if epoch != self.epoch {
            *self = Self {
                epoch,
                counts: self.counts,
                split: self.split,
                ..Self::default()
            };
        }
        // The newest that fits and whose tick is not after the datagram's; the last snapshot of a
        // session, whose number is rounded up, does not come here.
        let newest = tick / SNAPSHOT_TICKS;
        let number = newest - (newest.wrapping_sub(u32::from(*low)) & 0xff);
        match content {
            0 => {
                let [age] = rest else {
                    return Err("same has an age and no more");
                };
                if !(1..64).contains(age) || index != 0 || !is_last {
                    return Err("same stands alone");
                }
                let same = self.state_at(number - u32::from(*age));
                self.tell_range(number, 0, None, same);
            }
            1 => {
                let [head, rest @ ..] = rest else {
                    return Err("a whole body has a base");
                };
                let (age, others) = (head & 63, head >> 6);
                let (distances, rest) = match others {
                    0 => (Vec::new(), rest),
                    1 => (vec![1], rest),
                    2 => (vec![1, 4], rest),
                    _ => {
                        let [set, rest @ ..] = rest else {
                            return Err("a set of distances is a byte");
                        };
                        let bits = (0..6).filter(|bit| set >> bit & 1 == 1);
                        (bits.map(|bit| bit + 1).collect(), rest)
                    }
                };
                let mut states = Vec::new();
                if age > 0 {
                    let ages = distances.iter().map(|distance| age + distance);
                    for age in [age].into_iter().chain(ages) {
                        let state = self.state_at(number - u32::from(age));
                        states.push((i64::from(age), state));
                    }
                }
                let held: Vec<Held<'_>> = states
                    .iter()
                    .map(|(age, state)| Held { age: *age, state })
                    .collect();
                let range = document.whole(rest, &held)?;
                self.split += u32::from(range.next.is_some());
                self.tell_range(number, range.first, range.next, range.entities);
            }
            2 => {
                let items = if rest.is_empty() {
                    Vec::new()
                } else {
                    document.part(rest, |id, age| {
                        let told = self.told.get(&id)?;
                        let before = number.checked_sub(u32::try_from(age).ok()?)?;
                        told.range(..=before).next_back()?.1.clone()
                    })?
                };
                for (id, entity) in items {
                    self.tell(number, id, entity);
                }
            }
            _ => return Err("no content"),
        }
        self.counts[usize::from(content)] += 1;
        self.newest = self.newest.max(Some(number));
        let (arrived, last) = self.bodies.entry(number).or_default();
        *arrived |= 1 << index;
        if is_last {
            *last = Some(index);
        }
        if let Some(last) = *last
            && u32::from(*arrived) == (2 << last) - 1
        {
            self.complete = self.complete.max(Some(number));
        }
        Ok(())
    }
}

/// Runs a session; gives the reader, and how many complete snapshots were compared.
fn follow(seed: u64, things: u64, budget: u32, loss_percent: u64) -> (Reader, u32) {
    let schema = schema();
    let kinds = kinds();
    let tables = Tables::read(include_bytes!("../src/delta/tables.bin"));
    let document = Document {
        tables: &tables,
        kinds: &kinds,
    };
    let mut world = World::new(seed, things);
    let config = PublisherConfig {
        snapshot_ticks: SNAPSHOT_TICKS,
        rate: TickRate::DEFAULT,
        budget_bytes_per_second: budget,
    };
    let mut publisher = Publisher::new(&schema, config);
    let mut subscription = Subscription::new(Viewer {
        member: MemberId(1),
        slot: Some(Slot(0)),
        viewpoints: Vec::new(),
        rooms: Vec::new(),
    });
    let mut prng = Prng::with_stream(seed, 1);
    let mut reader = Reader::default();
    let mut news: VecDeque<(u32, Seq, bool)> = VecDeque::new();
    let mut compared = 0;
    for tick in 0..900_u32 {
        world.step();
        world.calm = (400..460).contains(&tick);
        if tick.is_multiple_of(SNAPSHOT_TICKS) {
            publisher.publish(&world.snapshot(&schema, tick));
        }
        while let Some((_, seq, arrived)) = news.pop_front_if(|(at, ..)| *at <= tick) {
            if arrived {
                subscription.on_ack(seq);
            } else {
                subscription.on_lost(seq);
            }
        }
        let seq = Seq::new(tick);
        let mut bytes = Vec::new();
        subscription.write(&mut publisher, seq, 1060, &mut bytes);
        let arrives = prng.below(100) >= loss_percent;
        news.push_back((tick + 8, seq, arrives));
        if !arrives || bytes.is_empty() {
            continue;
        }
        let before = reader.complete;
        reader
            .read(&document, tick, &bytes)
            .unwrap_or_else(|wrong| panic!("seed {seed}, tick {tick}: {wrong}: {bytes:02x?}"));
        let Some(number) = reader.complete.filter(|_| reader.complete != before) else {
            continue;
        };
        let snapshot = publisher.at(Tick::new(number * SNAPSHOT_TICKS)).unwrap();
        let real = state_of(snapshot, publisher.shapes(), &kinds);
        let read = reader.state_at(number);
        for (id, entity) in &real {
            assert_eq!(
                read.get(id),
                Some(entity),
                "seed {seed}, tick {tick}, entity {id}"
            );
        }
        assert_eq!(read.len(), real.len(), "seed {seed}, tick {tick}");
        compared += 1;
    }
    (reader, compared)
}

#[test]
fn whole_bodies_read_as_the_document_says() {
    for (seed, things) in [(1, 12), (2, 40), (3, 120)] {
        let (reader, compared) = follow(seed, things, 200_000, 5);
        let [same, whole, _] = reader.counts;
        assert!(whole > 200 && same > 0, "seed {seed}: {:?}", reader.counts);
        assert!(
            things < 100 || reader.split > 20,
            "seed {seed}: {}",
            reader.split
        );
        assert!(compared > 150, "seed {seed}: {compared}");
    }
}

#[test]
fn part_bodies_read_as_the_document_says() {
    let mut all = 0;
    for (seed, things) in [(4, 60), (5, 150)] {
        let (reader, compared) = follow(seed, things, 9000, 5);
        let [.., parts] = reader.counts;
        assert!(parts > 200, "seed {seed}: {:?}", reader.counts);
        all += compared;
    }
    assert!(all > 5, "{all} complete snapshots");
}

/// A replay of these states.
fn record(schema: &Arc<Schema>, states: &[Snapshot]) -> Vec<u8> {
    record_in_parts(schema, &[states])
}

/// A replay of these states, with a chunk at least for each part.
fn record_in_parts(schema: &Arc<Schema>, parts: &[&[Snapshot]]) -> Vec<u8> {
    let header = Header {
        game: "states".to_owned(),
        build: "1".to_owned(),
        mode: Mode::StateSync,
        tick_rate: TickRate::DEFAULT,
        input_bytes: 1,
        seed: 7,
        session: SessionId(0xfeed),
        schema: Arc::clone(schema),
        roster: vec![String::new()],
        start: parts[0][0].tick,
    };
    let mut writer = Writer::new(Cursor::new(Vec::new()), &header).unwrap();
    for part in parts {
        for state in *part {
            writer.state(state, false).unwrap();
        }
        writer.flush().unwrap();
    }
    writer.finish().unwrap().0.into_inner()
}

#[test]
fn recorded_states_read_as_the_documents_say() {
    let schema = Arc::new(schema());
    let kinds = kinds();
    let tables = Tables::read(include_bytes!("../src/delta/tables.bin"));
    let document = Document {
        tables: &tables,
        kinds: &kinds,
    };
    let mut world = World::new(6, 150);
    let mut states = Vec::new();
    for tick in 9..900_u32 {
        world.step();
        if tick.is_multiple_of(3) {
            states.push(world.snapshot(&schema, tick));
        }
    }
    let file = record(&schema, &states);
    let layout = WireLayout::new(&schema);
    let (mut next, mut run) = (0, Vec::<State>::new());
    let mut seen = [0, 0];
    for chunk in recorded::chunks(&file) {
        let goes_on = match chunk.0 {
            0x10 => false,
            0x11 => true,
            _ => continue,
        };
        seen[usize::from(goes_on)] += 1;
        let (version, distance, bodies) = recorded::states(&chunk);
        assert_eq!(version, u64::from(delta::VERSION));
        if goes_on {
            assert_eq!(distance, 3, "from the state before");
        } else {
            run.clear();
        }
        for (tick, body) in bodies {
            // The states 1, 2 and 5 before it, as far as the run has so many.
            let held: Vec<Held<'_>> = [1, 2, 5]
                .into_iter()
                .filter_map(|age| {
                    let at = run.len().checked_sub(age)?;
                    let state = &run[at];
                    let age = i64::try_from(age).unwrap();
                    Some(Held { age, state })
                })
                .collect();
            let read = document.whole(&body, &held).unwrap();
            assert_eq!((read.first, read.next), (0, None), "a body is not split");
            let (mut shapes, mut real) = (Shapes::default(), QuantizedSnapshot::default());
            Quantizer::default().quantize(&layout, &mut shapes, &states[next], None, &mut real);
            assert_eq!(tick, states[next].tick.number());
            assert!(
                read.entities == state_of(&real, &shapes, &kinds),
                "tick {tick}"
            );
            run.push(read.entities);
            next += 1;
        }
    }
    assert_eq!(next, states.len());
    assert!(seen[0] > 0 && seen[1] > 2, "{seen:?}");
}

/// Chunks 0x10 and 0x11 of a replay of five states: kind, first and last tick, payload.
const GOLDEN: &str = "
    10 30 36 020303031993ed6ffd343a0da4be3070c8013fcf0101d66e4e6018a5baf507cce6772e8b65090a29f922469c3491771780
    11 39 42 0203020306258e5114c9b103259be4
";

/// Two bodies that move, one of which gets a second kind.
fn tiny_states(schema: &Schema) -> Vec<Snapshot> {
    let state = |number: u32| {
        let mut world = World::new(1, 0);
        for id in [3_u64, 8] {
            let thing = Thing {
                place: [id as f32 + number as f32 * 0.25, 0.0, -2.0],
                turn: [0.0, 0.0, 0.0, 1.0],
                points: 500 - u16::try_from(number).unwrap(),
                has_health: id == 8 && number >= 2,
                ..Thing::default()
            };
            world.things.insert(id, thing);
        }
        world.snapshot(schema, 30 + 3 * number)
    };
    (0..5).map(state).collect()
}

#[test]
fn recorded_states_have_these_bytes() {
    let schema = Arc::new(schema());
    let states = tiny_states(&schema);
    let file = record_in_parts(&schema, &[&states[..3], &states[3..]]);
    let chunks = recorded::chunks(&file);
    let chunks = chunks.iter().filter(|chunk| matches!(chunk.0, 0x10 | 0x11));
    let lines: Vec<String> = chunks
        .map(|(kind, first, last, payload)| {
            let payload: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{kind:02x} {first} {last} {payload}")
        })
        .collect();
    let golden: Vec<&str> = GOLDEN
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    // Whoever changes what a body's bytes mean raises the codec's version, too.
    assert_eq!(lines, golden, "codec version {}", delta::VERSION);
}
