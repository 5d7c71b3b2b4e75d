//! The entities, how they move, and what is measured.

use std::collections::HashSet;
use std::time::Duration;

use phalanx_netcode::prng::Prng;

/// What a host has to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub entities: usize,
    pub clients: usize,
    /// Ticks, and as many snapshots, per second.
    pub rate: u32,
    /// Percent of the entities that change each tick: always the same ones.
    pub changing: usize,
    pub form: Form,
    /// Measured ticks.
    pub ticks: usize,
}

impl Load {
    pub fn tick(&self) -> Duration {
        Duration::from_secs(1) / self.rate
    }

    /// Whether entity `number` changes each tick.
    pub fn changes(&self, number: usize) -> bool {
        number * self.changing % 100 < self.changing
    }
}

/// What a user writes for libraries that do not quantize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Floats: three for the position, four for the rotation, three for the velocity; 43 bytes.
    Plain,
    /// Quantized by hand: rotation in four bytes, velocity in six; 25 bytes.
    Packed,
}

/// One entity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Row {
    pub position: [f32; 3],
    pub rotation: [f32; 4],
    pub velocity: [f32; 3],
    pub health: u16,
    pub state: u8,
}

impl Row {
    /// Rotation as the smallest three of ten bits.
    pub fn packed_rotation(&self) -> u32 {
        let mut largest = 0;
        for component in 1..4 {
            if self.rotation[component].abs() > self.rotation[largest].abs() {
                largest = component;
            }
        }
        let sign = self.rotation[largest].signum();
        let mut packed = largest as u32;
        for (_, value) in self
            .rotation
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != largest)
        {
            let share = sign * value * std::f32::consts::FRAC_1_SQRT_2 + 0.5;
            packed = packed << 10 | (share.clamp(0.0, 1.0) * 1023.0 + 0.5) as u32;
        }
        packed
    }

    /// Velocity in centimetres per second.
    pub fn packed_velocity(&self) -> [i16; 3] {
        self.velocity.map(|value| (value * 100.0) as i16)
    }
}

/// All entities, as a game moves them.
pub struct Scene {
    pub rows: Vec<Row>,
    prng: Prng,
    seconds: f32,
}

impl Scene {
    pub fn new(load: &Load) -> Self {
        let mut prng = Prng::new(1);
        let rows = (0..load.entities)
            .map(|_| Row {
                position: [(); 3].map(|()| prng.range_f32(-100.0, 100.0)),
                rotation: [0.0, 0.0, 0.0, 1.0],
                velocity: [(); 3].map(|()| prng.range_f32(-5.0, 5.0)),
                health: 1000,
                state: 0,
            })
            .collect();
        Self {
            rows,
            prng,
            seconds: load.tick().as_secs_f32(),
        }
    }

    /// Moves entity `number`: every field changes.
    pub fn advance(&mut self, number: usize) {
        let (row, prng) = (&mut self.rows[number], &mut self.prng);
        for axis in 0..3 {
            row.velocity[axis] += prng.range_f32(-1.0, 1.0) * self.seconds;
            row.position[axis] += row.velocity[axis] * self.seconds;
        }
        let mut length = 0.0;
        for value in &mut row.rotation {
            *value += prng.range_f32(-1.0, 1.0) * self.seconds;
            length += *value * *value;
        }
        for value in &mut row.rotation {
            *value /= length.sqrt();
        }
        row.health = if row.health == 0 {
            1000
        } else {
            row.health - 1
        };
        row.state = row.state.wrapping_add(1);
    }

    /// Order-free sum of the positions' bits: what a client has to end with.
    pub fn sum(&self) -> u64 {
        self.rows
            .iter()
            .map(|row| sum_of(row.position))
            .fold(0, u64::wrapping_add)
    }
}

/// One entity's part of [`Scene::sum`].
pub fn sum_of(position: [f32; 3]) -> u64 {
    position
        .iter()
        .fold(17, |sum: u64, value| {
            sum.wrapping_mul(31).wrapping_add(value.to_bits().into())
        })
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How many of `positions` the host has at this moment, as a share of all entities.
pub fn fresh(scene: &Scene, positions: impl Iterator<Item = [f32; 3]>) -> f64 {
    let present: HashSet<_> = scene
        .rows
        .iter()
        .map(|row| row.position.map(f32::to_bits))
        .collect();
    let fresh = positions
        .filter(|position| present.contains(&position.map(f32::to_bits)))
        .count();
    fresh as f64 / scene.rows.len() as f64
}

/// Counts of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub bytes: u64,
    pub datagrams: u64,
}

/// What was measured, means per client and tick.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub bytes_down: f64,
    pub datagrams_down: f64,
    pub bytes_up: f64,
    /// Median microseconds per tick, for all clients.
    pub host_us: f64,
    /// Mean share of the entities that the first client holds as the host's newest tick has them, after
    /// that tick's datagrams.
    pub fresh: f64,
    /// Whether every client ended with the host's positions.
    pub converged: bool,
}

impl Figures {
    pub fn new(
        load: &Load,
        (down, up): (Count, Count),
        mut times: Vec<Duration>,
        fresh: f64,
        converged: bool,
    ) -> Self {
        times.sort_unstable();
        let per_client_tick = |value: u64| value as f64 / (load.clients * times.len()) as f64;
        Self {
            bytes_down: per_client_tick(down.bytes),
            datagrams_down: per_client_tick(down.datagrams),
            bytes_up: per_client_tick(up.bytes),
            host_us: times[times.len() / 2].as_secs_f64() * 1e6,
            fresh: fresh / times.len() as f64,
            converged,
        }
    }

    pub fn json(&self, name: &str, load: &Load) -> String {
        format!(
            "{{\"library\":\"{name}\",\"form\":\"{:?}\",\"entities\":{},\"clients\":{},\"changing_percent\":{},\"rate\":{},\"bytes_down_per_client_tick\":{:.1},\"datagrams_down_per_client_tick\":{:.2},\"bytes_up_per_client_tick\":{:.1},\"host_us_per_tick\":{:.1},\"fresh\":{:.3},\"converged\":{}}}",
            load.form,
            load.entities,
            load.clients,
            load.changing,
            load.rate,
            self.bytes_down,
            self.datagrams_down,
            self.bytes_up,
            self.host_us,
            self.fresh,
            self.converged
        )
    }
}
