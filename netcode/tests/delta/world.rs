//! Random worlds for the codec: schemas, snapshots that follow each other, and what clients see.

use std::sync::Arc;

use phalanx_netcode::delta::{Entry, View};
use phalanx_netcode::id::NetId;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindSchema, KindShape, Lane, LaneModel, Prediction, QuantizedSnapshot,
    Schema, Shapes, Visibility, WireForm, WireLayout,
};
use phalanx_netcode::tick::Tick;

pub(crate) fn below(prng: &mut Prng, bound: usize) -> usize {
    usize::try_from(prng.below(bound as u64)).expect("below a usize")
}

/// A number in `0..bound`.
fn small(prng: &mut Prng, bound: u32) -> u32 {
    u32::try_from(prng.below(u64::from(bound))).expect("below a u32")
}

fn field(prng: &mut Prng, number: usize) -> FieldSchema {
    let name = format!("f{number}");
    let range = WireForm::Range { min: -3, max: 200 };
    let metres = WireForm::Fixed {
        min: -40,
        max: 40,
        per_unit: 1 + small(prng, 900),
    };
    let choice = ExactType::Enum(vec![
        (0, "Idle".to_owned(), vec![]),
        (
            4,
            "Walks".to_owned(),
            vec![FieldSchema::new("to", ExactType::Vec2).wire(metres)],
        ),
    ]);
    let field = match prng.below(14) {
        0 => FieldSchema::new(&name, ExactType::Vec3).wire(metres),
        1 => FieldSchema::new(&name, ExactType::Quat).wire(WireForm::Rotation {
            bits: 5 + u8::try_from(prng.below(11)).expect("small"),
        }),
        2 => FieldSchema::new(&name, ExactType::Bool),
        3 => FieldSchema::new(&name, ExactType::I32).wire(range),
        4 => FieldSchema::new(&name, ExactType::U64),
        5 => FieldSchema::new(&name, ExactType::NetId),
        6 => FieldSchema::new(&name, ExactType::F32),
        7 => FieldSchema::new(&name, choice),
        8 => FieldSchema::new(&name, ExactType::Option(Box::new(ExactType::I16))),
        9 => FieldSchema::new(&name, ExactType::List(Box::new(ExactType::U8))),
        10 => FieldSchema::new(&name, ExactType::Vec3).wire(WireForm::Unit { bits: 9 }),
        11 => FieldSchema::new(&name, ExactType::U32).wire(WireForm::Varint),
        12 => FieldSchema::new(&name, ExactType::F32).wire(WireForm::Half),
        _ => FieldSchema::new(&name, ExactType::Vec2).wire(metres),
    };
    if prng.below(4) == 0 {
        field.predicted(Prediction::Last)
    } else {
        field
    }
}

pub(crate) fn random_schema(prng: &mut Prng) -> Schema {
    let kinds = 1 + below(prng, 5);
    let mut kinds: Vec<KindSchema> = (0..kinds)
        .map(|kind| KindSchema {
            name: format!("kind{kind}"),
            version: 1,
            shape: KindShape::Component,
            visibility: Visibility::Client,
            fields: (0..below(prng, 5)).map(|at| field(prng, at)).collect(),
        })
        .collect();
    let spot = FieldSchema::new("spot", ExactType::Vec3).wire(WireForm::Fixed {
        min: -32,
        max: 32,
        per_unit: 512,
    });
    kinds.push(KindSchema {
        name: "spot".to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: vec![spot.position()],
    });
    Schema::new(kinds).expect("a schema")
}

/// One entity: its kinds, and per kind lanes, their speeds, and opaque bytes.
#[derive(Clone)]
struct Thing {
    id: NetId,
    kinds: Vec<u16>,
    lanes: Vec<Vec<i32>>,
    speeds: Vec<Vec<i32>>,
    opaque: Vec<Vec<u8>>,
    /// Kinds that the client does not get.
    hidden: u64,
}

/// A world that goes on from snapshot to snapshot.
pub(crate) struct World {
    pub(crate) layout: Arc<WireLayout>,
    pub(crate) shapes: Shapes,
    pub(crate) prng: Prng,
    things: Vec<Thing>,
    next_id: u64,
    tick: u32,
    /// Whether kinds may be hidden.
    pub(crate) hides: bool,
}

/// A snapshot and what the client gets of it.
pub(crate) struct Moment {
    pub(crate) snapshot: QuantizedSnapshot,
    pub(crate) entries: Vec<Entry>,
}

impl Moment {
    pub(crate) fn view(&self) -> View<'_> {
        View::of(&self.snapshot, &self.entries)
    }
}

impl World {
    pub(crate) fn new(layout: Arc<WireLayout>, seed: u64, count: usize, hides: bool) -> Self {
        let mut world = Self {
            layout,
            shapes: Shapes::default(),
            prng: Prng::new(seed),
            things: Vec::new(),
            next_id: 1,
            tick: 100,
            hides,
        };
        for _ in 0..count {
            world.spawn();
        }
        world
    }

    fn spawn(&mut self) {
        let prng = &mut self.prng;
        self.next_id += 1 + prng.below(2) * prng.below(20);
        let id = NetId::from_bits(self.next_id);
        let mut thing = Thing {
            id,
            kinds: vec![],
            lanes: vec![],
            speeds: vec![],
            opaque: vec![],
            hidden: 0,
        };
        let kinds: Vec<u16> = self.layout.kinds().map(|kind| kind.kind).collect();
        for kind in kinds {
            if self.prng.below(3) > 0 {
                self.add_kind(&mut thing, kind);
            }
        }
        self.things.push(thing);
    }

    fn add_kind(&mut self, thing: &mut Thing, kind: u16) {
        let plan = self.layout.kind(kind).expect("a kind of the layout");
        let place = thing.kinds.binary_search(&kind).expect_err("a new kind");
        let lanes = plan.lanes.iter().map(|lane| any(&mut self.prng, lane));
        thing.kinds.insert(place, kind);
        thing.lanes.insert(place, lanes.collect());
        thing.speeds.insert(
            place,
            plan.lanes
                .iter()
                .map(|_| i32::try_from(self.prng.below(61)).expect("small") - 30)
                .collect(),
        );
        let bytes = self.opaque(kind);
        thing.opaque.insert(place, bytes);
    }

    /// Lists of bytes for the opaque fields of a kind.
    fn opaque(&mut self, kind: u16) -> Vec<u8> {
        let plan = self.layout.kind(kind).expect("a kind of the layout");
        let mut bytes = Vec::new();
        for field in &plan.fields {
            if field.is_opaque {
                let count = small(&mut self.prng, 9);
                bytes.extend_from_slice(&count.to_le_bytes());
                bytes.extend((0..count).map(|_| self.prng.next_u64().to_le_bytes()[0]));
            }
        }
        bytes
    }

    /// The next snapshot: some things move, some change, some come, go, or change their kinds.
    pub(crate) fn step(&mut self, restlessness: u64) -> Moment {
        self.tick += 3;
        let layout = Arc::clone(&self.layout);
        let mut things = core::mem::take(&mut self.things);
        for thing in &mut things {
            if self.prng.below(100) >= restlessness {
                continue;
            }
            for place in 0..thing.kinds.len() {
                let kind = thing.kinds[place];
                let plan = layout.kind(kind).expect("a kind of the layout");
                for (at, lane) in plan.lanes.iter().enumerate() {
                    let value = &mut thing.lanes[place][at];
                    let is_number = matches!(lane.model, LaneModel::Scalar { .. });
                    match self.prng.below(12) {
                        0 => *value = any(&mut self.prng, lane),
                        1..8 if is_number => {
                            let speed = thing.speeds[place][at];
                            *value = value.saturating_add(speed).clamp(lane.min, lane.max);
                        }
                        _ => {}
                    }
                }
                if self.prng.below(8) == 0 {
                    thing.opaque[place] = self.opaque(kind);
                }
            }
            if self.prng.below(30) == 0 && !thing.kinds.is_empty() {
                let place = below(&mut self.prng, thing.kinds.len());
                thing.kinds.remove(place);
                thing.lanes.remove(place);
                thing.speeds.remove(place);
                thing.opaque.remove(place);
            }
            if self.prng.below(30) == 0 {
                let kinds: Vec<u16> = layout.kinds().map(|kind| kind.kind).collect();
                let kind = kinds[below(&mut self.prng, kinds.len())];
                if thing.kinds.binary_search(&kind).is_err() {
                    self.add_kind(thing, kind);
                }
            }
            thing.hidden = if self.hides && self.prng.below(3) == 0 {
                self.prng.next_u64() & ((1 << thing.kinds.len()) - 1)
            } else if self.hides {
                thing.hidden & ((1 << thing.kinds.len()) - 1)
            } else {
                0
            };
        }
        things.retain(|_| self.prng.below(100) >= restlessness / 20);
        self.things = things;
        for _ in 0..self.prng.below(1 + restlessness / 8) {
            self.spawn();
        }
        self.moment()
    }

    fn moment(&mut self) -> Moment {
        let mut snapshot = QuantizedSnapshot::new(Tick::new(self.tick));
        let mut entries = Vec::new();
        for (thing, index) in self.things.iter().zip(0..) {
            let shape = self
                .shapes
                .intern(&self.layout, &thing.kinds)
                .expect("few shapes");
            snapshot.push(thing.id, shape, Tick::new(self.tick), |lanes, opaque| {
                lanes.extend(thing.lanes.iter().flatten());
                opaque.extend(thing.opaque.iter().flatten());
            });
            // Some entities are of no interest to the client.
            if !self.hides || thing.id.bits() % 7 != 0 {
                entries.push(Entry {
                    index,
                    hidden: thing.hidden,
                });
            }
        }
        Moment { snapshot, entries }
    }
}

/// Any value of a lane.
fn any(prng: &mut Prng, lane: &Lane) -> i32 {
    let span = i64::from(lane.max) - i64::from(lane.min) + 1;
    let above = prng.below(u64::try_from(span).expect("bounds ascend"));
    let value = i64::from(lane.min) + i64::try_from(above).expect("within the span");
    i32::try_from(value).expect("within the bounds")
}

/// An entity's id, kinds, lanes and opaque bytes.
pub(crate) type Content = (NetId, Vec<u16>, Vec<i32>, Vec<u8>);

/// The kinds, lanes and bytes of a view's entities.
pub(crate) fn content(layout: &WireLayout, shapes: &Shapes, view: View<'_>) -> Vec<Content> {
    let mut visible = phalanx_netcode::delta::Projection::default();
    (0..view.len())
        .map(|place| {
            let (entity, hidden) = view.entity(place);
            visible.take(layout, shapes, &entity, hidden);
            (
                entity.id,
                visible.kinds.clone(),
                visible.lanes.clone(),
                visible.opaque.clone(),
            )
        })
        .collect()
}
