//! A world that moves, spawns and despawns, as states.

use std::sync::Arc;

use crate::id::NetId;
use crate::prng::Prng;
use crate::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot, Visibility,
};
use crate::tick::Tick;

pub(super) fn schema() -> Arc<Schema> {
    let kind = |name: &str, shape, visibility, exact| KindSchema {
        name: name.to_owned(),
        version: 1,
        shape,
        visibility,
        fields: vec![FieldSchema::new("0", exact)],
    };
    let component = KindShape::Component;
    Arc::new(
        Schema::new(vec![
            kind("place", component, Visibility::Client, ExactType::Vec3),
            kind("secret", component, Visibility::HostOnly, ExactType::U32),
            kind("orders", component, Visibility::HostOnly, ExactType::Text),
            kind(
                "random",
                KindShape::Resource,
                Visibility::HostOnly,
                ExactType::U64,
            ),
        ])
        .unwrap(),
    )
}

pub(super) struct World {
    units: Vec<(u64, [f32; 3], u32)>,
    next: u64,
    tick: u32,
    prng: Prng,
}

impl World {
    pub(super) fn new(units: u64, seed: u64) -> Self {
        let mut world = Self {
            units: Vec::new(),
            next: 1,
            tick: 0,
            prng: Prng::new(seed),
        };
        (0..units).for_each(|_| world.spawn());
        world
    }

    fn spawn(&mut self) {
        let mut one = || self.prng.range_f32(-100.0, 100.0);
        self.units.push((self.next, [one(), one(), one()], 7));
        self.next += 1;
    }

    pub(super) fn step(&mut self, out: &mut Snapshot) {
        self.tick += 1;
        if self.prng.below(4) == 0 {
            self.spawn();
        }
        if self.prng.below(5) == 0 && !self.units.is_empty() {
            let gone = self.prng.below(self.units.len() as u64);
            self.units.remove(usize::try_from(gone).unwrap());
        }
        for (id, place, secret) in &mut self.units {
            if !id.is_multiple_of(3) {
                place[0] += 0.1 + self.prng.unit_f32() * 0.01;
            }
            *secret += u32::from(self.prng.below(30) == 0);
        }
        out.tick = Tick::new(self.tick);
        out.kinds.resize_with(4, KindRows::default);
        out.kinds.iter_mut().for_each(KindRows::clear);
        // By name: orders, place, random, secret.
        for (id, place, secret) in &self.units {
            let id = NetId::from_bits(*id);
            if id.bits().is_multiple_of(7) {
                let text = format!("to {}", self.tick / 10);
                out.kinds[0].push(id, |out| {
                    out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
                    out.extend_from_slice(text.as_bytes());
                });
            }
            out.kinds[1].push(id, |out| {
                place.iter().for_each(|part| out.extend(part.to_le_bytes()));
            });
            out.kinds[3].push(id, |out| out.extend(secret.to_le_bytes()));
        }
        let state = self.prng.state();
        out.kinds[2].push(NetId::NONE, |out| out.extend(state.to_le_bytes()));
    }
}
