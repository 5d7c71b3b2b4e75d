//! State-sync over bad paths: random worlds, several clients, faults from a seed, and checkers.
//!
//! Safety, at every moment: what a client holds was true at the snapshot that told of it, and what
//! it calls complete is. Liveness: once the faults end, every client soon holds what it should.
//! `SEEDS=n` runs more seeds, `SEED=n cargo test -p phalanx-netcode --test statesync one_seed --
//! --nocapture` one of them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says how to repeat it"
)]

#[path = "statesync/channel.rs"]
mod channel;
#[path = "statesync/client.rs"]
mod client;
#[path = "statesync/run.rs"]
mod run;
#[path = "statesync/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use channel::Faults;
use client::Client;
use phalanx_netcode::limits::{STATE_HELD_BYTES_MAX, STATE_RING_SNAPSHOTS};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::statesync::Receiver;
use phalanx_netcode::tick::Tick;
use run::{DATAGRAM_BYTES, Run, below};

/// Seeds of a default run.
const SEEDS: u64 = 16;

fn run(seed: u64) {
    let mut run = Run::new(seed);
    let joins_by_keyframe = run.prng.below(2) == 0;
    for phase in 0..4 {
        run.draw_faults();
        run.world.draw_habits();
        for _ in 0..60 + run.prng.below(200) {
            run.step();
            if joins_by_keyframe && run.tick == 20 {
                for at in 0..run.clients.len() {
                    let client = &mut run.clients[at];
                    let keyframe = client.subscription.keyframe(&mut run.publisher).unwrap();
                    client.transfer = Some((run.tick + 12, keyframe.bytes));
                }
            }
        }
        if phase == 2 && run.prng.below(3) == 0 {
            let at = below(&mut run.prng, run.clients.len() as u64);
            let client = &mut run.clients[at];
            client.subscription.reset();
            client.transfer = None;
            client.transferred = None;
        }
    }
    // The faults end.
    for client in &mut run.clients {
        client.down.faults = Faults::default();
        client.up.faults = Faults::default();
        client.down.settle(run.tick);
        client.up.settle(run.tick);
    }
    // A world that goes on needs to fit, all of it, into the datagrams of a snapshot.
    let in_view = |client: &Client| client.subscription.statistics().in_view;
    let in_view_max = run.clients.iter().map(in_view).max().unwrap_or(0);
    let keeps_moving = run.is_generous && in_view_max < 60 && run.prng.below(2) == 0;
    if !keeps_moving {
        run.world.freeze();
    }
    let round_trip = 2 * run.latency + 2;
    let soon = 2 * round_trip + 2 * run.snapshot_ticks;
    if keeps_moving {
        let bytes = (0..run.clients.len()).map(|at| run.bytes_in_view(at));
        let bytes = bytes.max().unwrap_or(0);
        for _ in 0..soon + bytes.div_ceil(DATAGRAM_BYTES) {
            run.step();
        }
        for (at, client) in run.clients.iter().enumerate() {
            let complete = client.receiver.newest_complete();
            let late = complete.map_or(u32::MAX, |tick| run.tick - tick.number());
            let allowed = run.latency + 2 * run.snapshot_ticks + 1;
            assert!(
                late <= allowed,
                "client {at} is complete at {complete:?} only, it is {}; {:?}",
                run.tick,
                client.subscription.statistics()
            );
        }
    } else {
        run.converge(soon, round_trip);
    }
    assert!(run.schema.kinds().len() > 3);
}

fn checked(seed: u64) {
    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
        eprintln!(
            "reproduce with: SEED={seed} cargo test -p phalanx-netcode --test statesync one_seed \
             -- --nocapture"
        );
        std::panic::resume_unwind(cause);
    }
}

/// Bodies of a session, changed at random, before and instead of the right ones.
#[test]
fn changed_bodies_are_refused_or_taken_and_nothing_breaks() {
    let rounds = number("PHALANX_STORM").unwrap_or(30_000);
    let mut done = 0;
    let mut refused = 0_u64;
    let mut seed = 0;
    while done < rounds {
        let mut run = Run::new(seed);
        seed += 1;
        run.world.draw_habits();
        let mut prng = Prng::with_stream(seed, 9);
        let mut victim = Receiver::new(&run.schema, run.snapshot_ticks);
        let mut before: Vec<u8> = Vec::new();
        for _ in 0..150 {
            run.step();
            let client = &mut run.clients[0];
            let tick = Tick::new(run.tick - 1);
            let mut body = client.sent.clone();
            if run.tick == 100 {
                body = client
                    .subscription
                    .keyframe(&mut run.publisher)
                    .unwrap()
                    .bytes
                    .to_vec();
                client.subscription.keyframe_cancelled();
            }
            if body.is_empty() {
                continue;
            }
            for _ in 0..8 {
                let changed = change(&body, &before, &mut prng);
                refused += u64::from(victim.read(tick, &changed).is_err());
                refused += u64::from(victim.install_keyframe(&changed).is_err());
                done += 2;
            }
            // What was taken may have led it astray: the right one may be refused then.
            let right = victim.read(tick, &body);
            if right.is_err() && victim.needs_reset() {
                victim = Receiver::new(&run.schema, run.snapshot_ticks);
            }
            before = body;
            assert!(victim.memory() <= STATE_HELD_BYTES_MAX);
            assert!(victim.ticks().count() <= STATE_RING_SNAPSHOTS as usize + 1);
        }
    }
    assert!(
        refused > done / 4,
        "only {refused} of {done} were refused: the changes did not hit"
    );
}

/// `body` with some bits, bytes or its end changed, or grown together with another one.
fn change(body: &[u8], other: &[u8], prng: &mut Prng) -> Vec<u8> {
    let mut changed = body.to_vec();
    for _ in 0..1 + prng.below(3) {
        let at = below(prng, changed.len() as u64 + 1);
        match prng.below(6) {
            0 | 1 => {
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= 1 << prng.below(8);
                }
            }
            2 => {
                // The head decides most.
                if let Some(byte) = changed.get_mut(at % 4) {
                    *byte = prng.next_u32().to_le_bytes()[0];
                }
            }
            3 => changed.truncate(at),
            4 => changed.extend((0..prng.below(20)).map(|_| prng.next_u32().to_le_bytes()[0])),
            _ => {
                changed.truncate(at);
                changed.extend_from_slice(&other[other.len().min(at)..]);
            }
        }
    }
    changed
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn one_seed() {
    checked(number("SEED").unwrap_or(0));
}

#[test]
fn random_worlds_over_bad_paths_converge_and_never_lie() {
    for seed in 0..number("SEEDS").unwrap_or(SEEDS) {
        checked(seed);
    }
}
