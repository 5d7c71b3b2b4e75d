//! Scenes made with rapier3d, after Fiedler's demonstration.
//!
//! A large cube that a player drives about falls into a field of 900 small ones at rest. Cubes that
//! it comes near to cling to it by a pull, roll along, pile up, fly off in turns and come to rest
//! somewhere else: few cubes move, those that do move fast, hit each other and tumble. The same seed
//! and configuration give the same scene on every machine.

use phalanx_netcode::prng::Prng;
use rapier3d::prelude::{
    ColliderBuilder, PhysicsWorld, Real, RigidBodyBuilder, RigidBodyHandle, Rotation, Vector,
};

use super::{
    CUBES, Cube, Frame, ORIENTATION_MAX, POSITION_XY_MAX, POSITION_Z_MAX, RATE, UNITS_PER_METRE,
    empty_frame,
};

/// Small cubes of a row of the field.
const ROW: usize = 30;

/// Steps before the first snapshot.
const SETTLING: u32 = 120;

/// What a scene is like. Lengths in metres, times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SceneConfig {
    /// Half of a small cube's edge.
    pub small_half: f32,
    /// Half of the player's edge.
    pub player_half: f32,
    /// Distance of the field's cubes.
    pub spacing: f32,
    /// How far a cube of the field may stand off its place.
    pub scatter: f32,
    /// Height that the player falls from.
    pub drop: f32,
    /// Speed that the player makes for, per second.
    pub speed: f32,
    /// How fast the player reaches that speed, per second squared.
    pub thrust: f32,
    /// Shortest and longest time between two turns of the player.
    pub turn_after: [f32; 2],
    /// Cubes at most so far from the player's faces begin to cling to it.
    pub grab: f32,
    /// Cubes at least so far from the player's faces no longer cling to it.
    pub release: f32,
    /// Acceleration towards the player of cubes that cling, per second squared.
    pub pull: f32,
    /// Mean times for which cubes cling, and for which all are let go after that.
    pub hold: [f32; 2],
    /// Friction of all cubes.
    pub friction: f32,
    /// Bounce of all cubes.
    pub restitution: f32,
    /// Player turns back when so far from the middle.
    pub reach: f32,
}

impl Default for SceneConfig {
    /// A scene like Fiedler's: some 70 of the cubes move between a snapshot and its baseline.
    fn default() -> Self {
        Self {
            small_half: 0.2,
            player_half: 0.75,
            spacing: 1.0,
            scatter: 0.0,
            drop: 10.0,
            speed: 9.0,
            thrust: 30.0,
            turn_after: [0.5, 2.5],
            grab: 1.5,
            release: 3.0,
            pull: 40.0,
            hold: [10.0, 3.0],
            friction: 0.6,
            restitution: 0.1,
            reach: 20.0,
        }
    }
}

/// A scene of so many snapshots.
///
/// Two seeds drive the player about differently. Values that would leave the challenge's bounds are
/// clamped; with a `reach` of at most 25 m next to none do.
#[must_use]
pub fn generate(seed: u64, frames: usize, config: &SceneConfig) -> Vec<Frame> {
    let mut scene = Scene::new(seed, config);
    (0..frames)
        .map(|_| {
            let frame = scene.snapshot();
            scene.step();
            frame
        })
        .collect()
}

/// A running scene.
struct Scene<'a> {
    config: &'a SceneConfig,
    prng: Prng,
    world: PhysicsWorld,
    bodies: Vec<RigidBodyHandle>,
    clings: Vec<bool>,
    /// Where the player makes for, of length 1.
    heading: Vector,
    /// Steps until the next turn.
    turn_in: u32,
    /// Whether cubes cling, and steps until that ends.
    holds: bool,
    hold_in: u32,
}

impl<'a> Scene<'a> {
    fn new(seed: u64, config: &'a SceneConfig) -> Self {
        let mut prng = Prng::new(seed);
        let mut world = PhysicsWorld {
            gravity: Vector::new(0.0, 0.0, -9.81),
            ..PhysicsWorld::default()
        };
        world.integration_parameters.set_inv_dt(real(RATE));
        // Ground, and walls where the challenge's bounds end.
        let (wide, thick) = (40.0, 1.0);
        world.insert(
            RigidBodyBuilder::fixed().translation(Vector::new(0.0, 0.0, -thick)),
            ColliderBuilder::cuboid(wide, wide, thick).friction(config.friction),
        );
        for (x, y) in [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)] {
            let away = 31.0 + thick;
            let half = |side: f32| if side == 0.0 { wide } else { thick };
            world.insert(
                RigidBodyBuilder::fixed().translation(Vector::new(x * away, y * away, 0.0)),
                ColliderBuilder::cuboid(half(x), half(y), 16.0),
            );
        }

        let mut bodies = Vec::with_capacity(CUBES);
        for index in 0..CUBES {
            let (place, half) = if index == 0 {
                (Vector::new(0.0, 0.0, config.drop), config.player_half)
            } else {
                let (row, column) = ((index - 1) / ROW, (index - 1) % ROW);
                let mut along = |number: usize| {
                    let off = prng.range_f32(-config.scatter, config.scatter);
                    let number = u16::try_from(number).unwrap_or(0);
                    (f32::from(number) - 14.5) * config.spacing + off
                };
                let (x, y) = (along(column), along(row));
                (Vector::new(x, y, config.small_half), config.small_half)
            };
            let (body, _collider) = world.insert(
                RigidBodyBuilder::dynamic()
                    .translation(place)
                    .ccd_enabled(index == 0),
                ColliderBuilder::cuboid(half, half, half)
                    .friction(config.friction)
                    .restitution(config.restitution),
            );
            bodies.push(body);
        }
        // The field comes to rest before the player falls.
        world.bodies[bodies[0]].set_gravity_scale(0.0, true);
        for _ in 0..SETTLING {
            world.step();
        }
        world.bodies[bodies[0]].set_gravity_scale(1.0, true);
        Self {
            config,
            prng,
            world,
            bodies,
            clings: vec![false; CUBES],
            heading: Vector::new(1.0, 0.0, 0.0),
            turn_in: 0,
            holds: false,
            hold_in: 0,
        }
    }

    fn step(&mut self) {
        self.steer();
        self.drag_along();
        self.world.step();
    }

    /// The player accelerates along its heading, in a direction that changes now and then.
    fn steer(&mut self) {
        let config = self.config;
        let at = self.player();
        let far = at.x * at.x + at.y * at.y > config.reach * config.reach;
        if self.turn_in == 0 {
            self.heading = direction(&mut self.prng);
            self.turn_in = self.steps(config.turn_after);
        }
        if far && at.x * self.heading.x + at.y * self.heading.y > 0.0 {
            self.heading = -self.heading;
        }
        self.turn_in -= 1;
        let (wanted, thrust) = (self.heading * config.speed, config.thrust);
        let body = &mut self.world.bodies[self.bodies[0]];
        let mut missing = wanted - body.linvel();
        missing.z = 0.0;
        let change = thrust / real(RATE);
        let length = missing.length();
        if length > change {
            missing *= change / length;
        }
        let impulse = missing * body.mass();
        // A little above the centre, so that the cube tumbles along rather than slides.
        let point = body.translation() + Vector::new(0.0, 0.0, config.player_half * 0.5);
        body.apply_impulse_at_point(impulse, point, true);
    }

    /// Pulls the cubes that cling.
    fn drag_along(&mut self) {
        let config = self.config;
        if self.hold_in == 0 {
            self.holds = !self.holds;
            let seconds = config.hold[usize::from(!self.holds)];
            self.hold_in = self.steps([seconds * 0.5, seconds * 1.5]);
        }
        self.hold_in -= 1;
        let at = self.player();
        let (near, far) = (
            config.player_half + config.grab,
            config.player_half + config.release,
        );
        for (index, clings) in self.clings.iter_mut().enumerate().skip(1) {
            let body = &mut self.world.bodies[self.bodies[index]];
            let to_player = at - body.translation();
            let distance = to_player.length();
            *clings = self.holds && distance < if *clings { far } else { near };
            if *clings && distance > config.small_half {
                let impulse = to_player * (config.pull / distance * body.mass() / real(RATE));
                body.apply_impulse(impulse, true);
            }
        }
        self.clings[0] = true;
    }

    fn player(&self) -> Vector {
        self.world.bodies[self.bodies[0]].translation()
    }

    /// A time between the two, in steps, at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that is cast saturates; a scene's times are a few seconds"
    )]
    fn steps(&mut self, [least, most]: [f32; 2]) -> u32 {
        (self.prng.range_f32(least, most) * real(RATE)).max(1.0) as u32
    }

    fn snapshot(&self) -> Frame {
        let mut frame = empty_frame();
        for (index, cube) in frame.iter_mut().enumerate() {
            let body = &self.world.bodies[self.bodies[index]];
            *cube = quantize(body.translation(), body.rotation());
            cube.interacting = self.clings[index];
        }
        frame
    }
}

/// Any direction on the ground, of length 1, without the functions that platforms differ in.
fn direction(prng: &mut Prng) -> Vector {
    loop {
        let (x, y) = (prng.range_f32(-1.0, 1.0), prng.range_f32(-1.0, 1.0));
        let length = (x * x + y * y).sqrt();
        if (0.1..=1.0).contains(&length) {
            return Vector::new(x / length, y / length, 0.0);
        }
    }
}

fn quantize(position: Vector, rotation: &Rotation) -> Cube {
    let four = [rotation.x, rotation.y, rotation.z, rotation.w];
    let mut largest = 0;
    for component in 1..4 {
        if four[component].abs() > four[largest].abs() {
            largest = component;
        }
    }
    let sign = if four[largest] < 0.0 { -1.0 } else { 1.0 };
    let orientation = [0, 1, 2].map(|component| {
        let value = sign * four[component + usize::from(component >= largest)];
        let share = value * std::f32::consts::FRAC_1_SQRT_2 + 0.5;
        let max = i32::from(ORIENTATION_MAX);
        u16::try_from(rounded(share * real(max.cast_unsigned()), 0, max)).unwrap_or(0)
    });
    let units = real(UNITS_PER_METRE.cast_unsigned());
    Cube {
        largest: u8::try_from(largest).unwrap_or(0),
        orientation,
        position: [
            rounded(position.x * units, -POSITION_XY_MAX, POSITION_XY_MAX),
            rounded(position.y * units, -POSITION_XY_MAX, POSITION_XY_MAX),
            rounded(position.z * units, 0, POSITION_Z_MAX),
        ],
        interacting: false,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float that is cast saturates"
)]
fn rounded(value: f32, min: i32, max: i32) -> i32 {
    ((value + 0.5).floor() as i32).clamp(min, max)
}

/// Exact for the small numbers here.
fn real(value: u32) -> Real {
    f32::from(u16::try_from(value).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_scene() {
        let config = SceneConfig::default();
        let scene = generate(1, 90, &config);
        assert_eq!(scene.len(), 90);
        assert!(scene == generate(1, 90, &config), "the same seed");
        assert!(scene != generate(2, 90, &config), "another seed");
    }

    #[test]
    fn the_player_falls_and_takes_cubes_along() {
        let scene = generate(1, 240, &SceneConfig::default());
        let (first, last) = (&scene[0], &scene[239]);
        assert_eq!(first[0].position, [0, 0, 10 * UNITS_PER_METRE]);
        assert!(
            (100..=104).contains(&first[1].position[2]),
            "{:?}",
            first[1]
        );
        assert_eq!(first[1].largest, 3);
        let upright = |value: &u16| (254..=258).contains(value);
        assert!(first[1].orientation.iter().all(upright), "{:?}", first[1]);
        assert!(last[0].position[2] < 4 * UNITS_PER_METRE, "{:?}", last[0]);
        let moved = (1..CUBES)
            .filter(|&index| first[index].position != last[index].position)
            .count();
        assert!((20..600).contains(&moved), "{moved} cubes moved");
        assert!(last.iter().filter(|cube| cube.interacting).count() > 1);
    }
}
