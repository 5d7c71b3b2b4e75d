//! Random numbers as a part of the state.

use bevy_ecs::resource::Resource;
use phalanx_macros::Networked;
use phalanx_netcode::hash::mix;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::tick::Tick;

/// The generator of a game's random numbers. It lies in the state: a rollback takes it back, a
/// late joiner gets it, and every node draws the same numbers.
///
/// Two systems that draw from it must be ordered, since the order of draws matters; the schedule
/// refuses them otherwise.
///
/// Clients of state-sync get neither it nor the seed that it began with ([`SessionSetup::seed`] is
/// another one there): nobody can foresee what the host draws. Where clients predict, each tick
/// draws from numbers of its own, which follow from the session's public seed and the tick: they
/// differ from the host's but stay the same for a tick that runs again. So leave to the host what
/// depends on chance ([`on_authority`](crate::on_authority)), or let the next snapshot correct it.
///
/// The generator is fast, not cryptographic: who sees many of its numbers bare, because the game
/// shows them, may be able to go on from there.
///
/// [`SessionSetup::seed`]: crate::SessionSetup::seed
#[derive(Resource, Networked, Clone, Copy, Debug, PartialEq, Eq)]
#[networked(name = "phalanx.rng", visibility = HostOnly)]
pub struct TickRng(Prng);

impl TickRng {
    /// The generator of a session with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Prng::with_stream(seed, STREAM))
    }

    /// What a predicting client draws from at `tick`: not the host's numbers, which it must not
    /// know, but the same ones whenever the tick runs again.
    pub(crate) fn predicted(public_seed: u64, tick: Tick) -> Self {
        let seed = mix(public_seed, u64::from(tick.number()));
        Self(Prng::with_stream(seed, STREAM))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// Whether an event of probability `per_million` / 1 000 000 happens.
    pub fn chance_per_million(&mut self, per_million: u32) -> bool {
        self.0.chance_per_million(per_million)
    }

    /// A number in `[0, 1)`.
    pub fn unit_f32(&mut self) -> f32 {
        self.0.unit_f32()
    }

    /// A number in `[low, high)`.
    pub fn range_f32(&mut self, low: f32, high: f32) -> f32 {
        self.0.range_f32(low, high)
    }
}

/// Keeps the game's numbers apart from other uses of the session's seed.
const STREAM: u64 = 0x7469_636b;
