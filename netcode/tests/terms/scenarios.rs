//! Scenarios that need one rule each: with all rules nothing goes wrong in them, and without that
//! one something does. Most are sweeps over the moment at which something happens.

use phalanx_netcode::id::{MemberId, Term};
use phalanx_netcode::migration::{Ablation, Authority, ElectionKind, HostPolicy, TermMessage};
use phalanx_netcode::prng::Prng;

use crate::network::{Network, Quality};
use crate::world::World;

/// When the roster has settled.
const SETTLED_US: u64 = 3_000_000;
/// Beyond the end of all scenarios.
const FOR_EVER: u64 = 1 << 40;

fn world(nodes: u64, standbys: Option<u8>, ablation: Ablation) -> World {
    let quality = Quality {
        rtt_us: 20_000,
        jitter_us: 0,
        loss_ppm: 0,
        duplicate_ppm: 0,
        stale_ppm: 0,
        burst_ppm: 0,
    };
    let mut world = World::new(Network::new(quality, Prng::new(9)));
    for _ in 0..nodes {
        let policy = HostPolicy {
            ablation,
            standbys,
            fork_after_us: None,
            ..HostPolicy::default()
        };
        world.add(policy, 0);
    }
    world.run_until(SETTLED_US);
    world
}

/// Nothing passes any more from `from` to `to`.
fn block(world: &mut World, from: &[u64], to: &[u64]) {
    for &one in from {
        for &other in to {
            world.network.block(one, other, FOR_EVER);
        }
    }
}

fn part(world: &mut World, here: &[u64], there: &[u64]) {
    block(world, here, there);
    block(world, there, here);
}

/// Steps until `done`, for two seconds at most.
fn step_until(world: &mut World, done: impl Fn(&World) -> bool) {
    let end = world.now + 2_000_000;
    while !done(world) && world.now < end && world.checks.violation.is_none() {
        world.step();
    }
}

/// The first violation of the runs of `scenario`, of which there are `count`.
fn sweep(count: u64, scenario: impl Fn(u64) -> World) -> Option<(u64, String)> {
    (0..count).find_map(|number| {
        let mut world = scenario(number);
        world.checks.violation.take().map(|text| (number, text))
    })
}

#[track_caller]
fn assert_needed(count: u64, without: Ablation, scenario: fn(u64, Ablation) -> World) {
    let with_all = sweep(count, |number| scenario(number, Ablation::default()));
    assert_eq!(with_all, None, "with all rules");
    let ablated = sweep(count, |number| scenario(number, without));
    assert!(ablated.is_some(), "nobody notices what is missing");
}

/// Whether a voter that has not heard its host for a while, then takes a tick datagram, and is asked
/// for its vote so much later, gives it.
fn votes_after_a_tick(wait_us: u64, ablation: Ablation) -> bool {
    let mut world = world(3, None, ablation);
    let standby = world.nodes[0].terms.roster().standbys[0];
    let voter = if standby == MemberId(1) { 2 } else { 1 };
    // No word that was given before lasts so long, and it has not lost patience yet.
    block(&mut world, &[0], &[voter]);
    let silent = world.now + 140_000;
    world.run_until(silent);
    let tick_at = world.local(voter);
    let request = TermMessage::VoteRequest {
        term: Term(9),
        seq: 1,
        suspect_ms: 150,
        kind: ElectionKind::Failover,
        position: {
            let candidate = &world.nodes[usize::try_from(standby.0).unwrap()];
            let lineage = &candidate.terms.roster().lineage;
            lineage.position(candidate.toy.newest())
        },
        roster: world.nodes[0].terms.roster().clone(),
    };
    let node = &mut world.nodes[usize::try_from(voter).unwrap()];
    node.terms.heard(tick_at, MemberId(0));
    while node.terms.poll_send().is_some() {}
    let asked_at = tick_at.plus_micros(wait_us);
    node.terms.handle(asked_at, standby, &request, &node.toy);
    let mut votes = core::iter::from_fn(|| node.terms.poll_send());
    votes.any(|(to, message)| to == standby && matches!(message, TermMessage::Vote { .. }))
}

#[test]
fn r3_a_voter_keeps_the_word_that_its_ack_of_a_tick_gives() {
    let all = Ablation::default();
    assert!(!votes_after_a_tick(0, all));
    assert!(!votes_after_a_tick(129_000, all));
    assert!(votes_after_a_tick(131_000, all));
    let without = Ablation {
        no_tick_word: true,
        ..all
    };
    assert!(votes_after_a_tick(0, without));
}

/// A new host, to which votes came late, is cut off; the other standby is elected at once.
fn late_votes(number: u64, ablation: Ablation) -> World {
    let mut world = world(5, None, ablation);
    world.crash(0);
    // Of both standbys the first one stands; what it is sent then takes long.
    step_until(&mut world, |it| it.nodes[1].terms.statistics().stood > 0);
    for id in 2..5 {
        world.network.far.insert((id, 1), 40_000 + number * 8000);
    }
    step_until(&mut world, |it| {
        (2..5).all(|id| it.nodes[id].terms.fence() > Term(1))
    });
    block(&mut world, &[1], &[2, 3, 4]);
    let end = world.now + 1_500_000;
    world.run_until(end);
    world
}

#[test]
fn r4_a_lease_counts_from_the_request() {
    let without = Ablation {
        late_lease: true,
        ..Ablation::default()
    };
    assert_needed(12, without, late_votes);
}

/// A host has another standby, and tells only that one; then the two are cut off from the rest.
fn standby_changes(number: u64, ablation: Ablation) -> World {
    let mut world = world(5, Some(1), ablation);
    let before = world.nodes[0].terms.roster().standbys[0].0;
    world.nodes[usize::try_from(before).unwrap()]
        .terms
        .set_load(60, 0);
    let next: u64 = if before == 1 { 2 } else { 1 };
    let rest: Vec<u64> = (1..5).filter(|&id| id != next).collect();
    // Its load is reported within a second, and ranked then.
    let cut_at = world.now + number * 4000;
    world.run_until(cut_at);
    part(&mut world, &[0, next], &rest);
    let end = world.now + 1_500_000;
    world.run_until(end);
    world
}

#[test]
fn r6_a_change_of_standbys_counts_in_both_lists_until_it_is_known() {
    let without = Ablation {
        no_commit: true,
        ..Ablation::default()
    };
    assert_needed(300, without, standby_changes);
}

/// A new host reaches its standby only; then the old one comes back among the rest.
fn unknown_term(number: u64, ablation: Ablation) -> World {
    let mut world = world(5, Some(1), ablation);
    let next = world.nodes[0].terms.roster().standbys[0].0;
    let others: Vec<u64> = (1..5).filter(|&id| id != next).collect();
    world.pause(0, 400_000 + number * 20_000);
    step_until(&mut world, |it| {
        others
            .iter()
            .all(|&id| it.nodes[usize::try_from(id).unwrap()].terms.fence() > Term(1))
    });
    // All have voted; who becomes its standby is the first of them.
    let (second, rest) = (others[0], &others[1..]);
    block(&mut world, &[next], &[&[0], rest].concat());
    step_until(&mut world, |it| {
        it.nodes[usize::try_from(next).unwrap()].terms.is_host()
    });
    part(&mut world, &[next, second], &[&[0], rest].concat());
    let end = world.now + 2_500_000;
    world.run_until(end);
    world
}

#[test]
fn r7_nothing_is_safe_before_the_terms_first_roster_is_known() {
    let without = Ablation {
        early_safe: true,
        ..Ablation::default()
    };
    assert_needed(12, without, unknown_term);
}

/// The term after nothing has reached the host for a moment: longer than its lease, but shorter
/// than its voters have patience.
fn deaf_for_a_moment(number: u64, ablation: Ablation) -> u32 {
    let mut world = world(3, None, ablation);
    let until = world.now + 130_000 + number * 5000;
    for id in [1, 2] {
        world.network.block(id, 0, until);
    }
    let end = world.now + 1_500_000;
    world.run_until(end);
    assert_eq!(world.checks.violation, None);
    world.nodes[0].terms.term().0
}

#[test]
fn r8_a_frozen_host_that_is_not_silent_goes_on_in_its_term() {
    let without = Ablation {
        silent_when_frozen: true,
        ..Ablation::default()
    };
    for number in 0..8 {
        assert_eq!(
            deaf_for_a_moment(number, Ablation::default()),
            1,
            "{number}"
        );
    }
    assert!((0..8).any(|number| deaf_for_a_moment(number, without) > 1));
}

/// I13: however long nobody can be elected, machines neither grow nor talk more and more, and
/// afterwards they are in step as soon as ever.
#[test]
fn i13_an_endless_partition_is_borne() {
    let mut world = world(5, None, Ablation::default());
    let all: Vec<u64> = (0..5).collect();
    for &id in &all {
        let others: Vec<u64> = all.iter().copied().filter(|&other| other != id).collect();
        block(&mut world, &[id], &others);
    }
    let sent = |world: &World| -> Vec<u64> {
        let nodes = world.nodes.iter();
        nodes.map(|node| node.terms.statistics().sent).collect()
    };
    let begun = world.now;
    world.run_until(begun + 2_000_000);
    let (before, held) = (sent(&world), world.nodes[0].toy.newest());
    world.run_until(begun + 302_000_000);
    for (id, (now, then)) in sent(&world).iter().zip(&before).enumerate() {
        // At most one message per beat to each other node.
        assert!(now - then < 300 * 60 * 4 + 1000, "{id} sent {}", now - then);
        assert_eq!(world.nodes[id].terms.statistics().overflowed, 0);
    }
    assert_eq!(
        world.nodes[0].toy.newest(),
        held,
        "a frozen host runs nothing"
    );
    world.network.heal();
    let healed = world.now;
    while !world.is_in_step() && world.now < healed + 3_000_000 {
        let next = world.now + 20_000;
        world.run_until(next);
    }
    assert!(world.is_in_step(), "{}", world.summary());
    assert_eq!(world.checks.violation, None);
}
