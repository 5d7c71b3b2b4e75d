//! The entities as Bevy components, for the libraries on it.

use bevy::prelude::*;
use serde::{Deserialize, Serialize};

use crate::scene::{Form, Load, Scene, sum_of};

#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Position(pub [f32; 3]);

#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Rotation(pub [f32; 4]);

#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Velocity(pub [f32; 3]);

#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Health(pub u16);

#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct State(pub u8);

/// Four plain bytes, which a variable-length integer would make five of.
#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct PackedRotation(pub [u8; 4]);

#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct PackedVelocity(pub [u8; 6]);

impl PackedVelocity {
    pub fn new([x, y, z]: [i16; 3]) -> Self {
        let ([a, b], [c, d], [e, f]) = (x.to_le_bytes(), y.to_le_bytes(), z.to_le_bytes());
        Self([a, b, c, d, e, f])
    }
}

/// Spawns the scene; `extra` is what makes an entity replicate.
pub fn spawn<B: Bundle>(
    world: &mut World,
    scene: &Scene,
    load: &Load,
    extra: impl Fn() -> B,
) -> Vec<Entity> {
    scene
        .rows
        .iter()
        .map(|row| {
            let mut entity = world.spawn((
                extra(),
                Position(row.position),
                Health(row.health),
                State(row.state),
            ));
            match load.form {
                Form::Plain => entity.insert((Rotation(row.rotation), Velocity(row.velocity))),
                Form::Packed => entity.insert((
                    PackedRotation(row.packed_rotation().to_le_bytes()),
                    PackedVelocity::new(row.packed_velocity()),
                )),
            };
            entity.id()
        })
        .collect()
}

/// One tick of the game.
pub fn advance(world: &mut World, scene: &mut Scene, load: &Load, entities: &[Entity]) {
    for (number, entity) in entities.iter().enumerate() {
        if !load.changes(number) {
            continue;
        }
        scene.advance(number);
        let row = scene.rows[number];
        let mut entity = world.entity_mut(*entity);
        entity.insert((Position(row.position), Health(row.health), State(row.state)));
        match load.form {
            Form::Plain => entity.insert((Rotation(row.rotation), Velocity(row.velocity))),
            Form::Packed => entity.insert((
                PackedRotation(row.packed_rotation().to_le_bytes()),
                PackedVelocity::new(row.packed_velocity()),
            )),
        };
    }
}

/// How many entities a client holds, and [`Scene::sum`] over them.
pub fn held(world: &mut World) -> (usize, u64) {
    let mut query = world.query::<&Position>();
    let mut held = (0, 0_u64);
    for position in query.iter(world) {
        held = (held.0 + 1, held.1.wrapping_add(sum_of(position.0)));
    }
    held
}

/// The positions that a client holds.
pub fn positions(world: &mut World) -> Vec<[f32; 3]> {
    let mut query = world.query::<&Position>();
    query.iter(world).map(|position| position.0).collect()
}
