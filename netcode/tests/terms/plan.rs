//! Runs from a seed: who takes part, how bad the paths are, and what goes wrong when.

use phalanx_netcode::migration::{Ablation, HostPolicy};
use phalanx_netcode::prng::Prng;

use crate::network::{Network, Quality};
use crate::world::World;

/// When faults begin, and when all of them are over.
pub(crate) const FAULTS_FROM_US: u64 = 2_000_000;
pub(crate) const FAULTS_UNTIL_US: u64 = 8_000_000;
/// Time in which all must be in step after the last fault.
pub(crate) const RECOVERY_US: u64 = 9_000_000;

/// The longest time after which silence is suspicious.
const SUSPECT_US_MAX: u64 = 1_000_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash {
        host: bool,
        back_us: Option<u64>,
    },
    Pause {
        host: bool,
        us: u64,
    },
    /// Paths between two groups of nodes.
    Cut {
        cut: Cut,
        mask: u64,
        us: u64,
    },
    Spike {
        more_us: u64,
        us: u64,
    },
    Slow {
        us: u64,
    },
    HandOver {
        crash: Option<(bool, u64)>,
    },
    Join,
    Leave {
        host: bool,
    },
}

/// Which paths between two groups are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    All,
    /// Those from one group to the other.
    OneWay,
    /// All but those of one node.
    Bridged,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: u64,
    pub(crate) has_arbiter: bool,
    pub(crate) quality: Quality,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) prng: Prng,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut prng = Prng::with_stream(seed, 1);
        let (nodes, has_arbiter) = match seed % 5 {
            0 => (3, false),
            1 => (4, false),
            2 => (5, false),
            3 => (8, false),
            _ => (3, true),
        };
        let pick = |prng: &mut Prng, from: &[u64]| {
            from[usize::try_from(prng.below(from.len() as u64)).unwrap()]
        };
        let rtt_us = pick(&mut prng, &[2000, 20_000, 50_000, 50_000, 100_000, 200_000]);
        let loss = pick(&mut prng, &[0, 0, 10_000, 20_000, 50_000, 100_000, 300_000]);
        let rare = |prng: &mut Prng, ppm: u32| if prng.below(3) == 0 { ppm } else { 0 };
        let quality = Quality {
            rtt_us,
            jitter_us: pick(&mut prng, &[0, 2000, 5000, 20_000]),
            loss_ppm: u32::try_from(loss).unwrap(),
            duplicate_ppm: rare(&mut prng, 30_000),
            stale_ppm: rare(&mut prng, 5000),
            burst_ppm: rare(&mut prng, 1500),
        };
        let mut faults = Vec::new();
        let mut lost = 0;
        for _ in 0..1 + prng.below(6) {
            let at = FAULTS_FROM_US + prng.below(FAULTS_UNTIL_US - FAULTS_FROM_US - 500_000);
            let us = 100_000 + prng.below(2_500_000);
            let host = prng.below(3) > 0;
            let mask = prng.next_u64();
            let fault = match prng.below(16) {
                0..=2 => Fault::Crash {
                    host,
                    back_us: (prng.below(2) == 0).then_some(us),
                },
                3 | 4 => Fault::Pause { host, us },
                5..=9 => {
                    let cut = [Cut::All, Cut::All, Cut::OneWay, Cut::OneWay, Cut::Bridged];
                    let cut = cut[usize::try_from(prng.below(5)).unwrap()];
                    Fault::Cut { cut, mask, us }
                }
                10 => Fault::Spike {
                    more_us: 100_000 + prng.below(900_000),
                    us,
                },
                11 => Fault::Slow { us },
                12 | 13 => {
                    let crash = (prng.below(2) == 0)
                        .then(|| (prng.below(2) == 0, prng.below(3 * rtt_us + 200_000)));
                    Fault::HandOver { crash }
                }
                14 => Fault::Join,
                _ => Fault::Leave { host },
            };
            let loses = matches!(
                fault,
                Fault::Crash { .. } | Fault::Leave { .. } | Fault::HandOver { crash: Some(_) }
            );
            // More than a minority at once is beyond what anything can survive.
            if loses {
                if lost >= (nodes - 1) / 2 {
                    continue;
                }
                lost += 1;
            }
            faults.push((at, fault));
        }
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            nodes,
            has_arbiter,
            quality,
            faults,
            prng,
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) terms: u32,
    pub(crate) unclean: bool,
    /// Whether enough voters were left.
    pub(crate) had_quorum: bool,
    /// Time until all were in step after the last fault, if they ever were.
    pub(crate) recovered_us: Option<u64>,
}

/// Of so many ticks a host sends one: all of them, or fewer as where little happens.
fn sends_every(seed: u64) -> u64 {
    [1, 1, 4, 12][usize::try_from(seed / 5 % 4).unwrap()]
}

/// Runs a plan.
pub(crate) fn run(mut plan: Plan, ablation: Ablation, trace: bool) -> Outcome {
    let network = Network::new(plan.quality, Prng::with_stream(plan.seed, 2));
    let mut world = World::new(network);
    world.trace = trace;
    if trace {
        eprintln!("{plan:?}");
    }
    for index in 0..plan.nodes {
        let is_arbiter = plan.has_arbiter && index + 1 == plan.nodes;
        let mut policy = if is_arbiter {
            HostPolicy::arbiter()
        } else {
            HostPolicy::default()
        };
        policy.ablation = ablation;
        policy.fork_after_us = None;
        let ppm = i64::try_from(plan.prng.below(1001)).unwrap() - 500;
        let id = world.add(policy, ppm);
        world.nodes[usize::try_from(id).unwrap()].sends_every = sends_every(plan.seed);
    }
    let faults = core::mem::take(&mut plan.faults);
    let mut crashes: Vec<(u64, u64, bool)> = Vec::new();
    for (at, fault) in faults {
        run_to(&mut world, at, &mut crashes);
        if world.checks.violation.is_some() {
            break;
        }
        apply(&mut world, &mut plan, fault, ablation, &mut crashes);
    }
    run_to(&mut world, FAULTS_UNTIL_US, &mut crashes);
    run_to(&mut world, FAULTS_UNTIL_US + 3_000_000, &mut crashes);
    finish(world)
}

/// Ends all faults, and waits until everyone is in step.
fn finish(mut world: World) -> Outcome {
    world.network.heal();
    for node in &mut world.nodes {
        node.paused_until = node.paused_until.min(world.now);
    }
    let healed_at = world.now;
    let had_quorum = world.has_quorum();
    let mut recovered_us = None;
    while world.checks.violation.is_none() && world.now < healed_at + RECOVERY_US {
        let next = world.now + 20_000;
        world.run_until(next);
        if world.is_in_step() {
            let us = world.now - healed_at;
            recovered_us = Some(us);
            // Silence is suspicious after a second at most, whatever paths were like before.
            let quality = world.network.quality;
            let bound_us = 2 * SUSPECT_US_MAX + 6 * (quality.rtt_us + 2 * quality.jitter_us);
            if had_quorum && !world.checks.unclean {
                world.checks.in_step_after(us, bound_us);
            }
            break;
        }
    }
    if recovered_us.is_some() {
        // Some progress, and all inputs are settled.
        let until = world.now + 600_000;
        world.run_until(until);
        if let Some(host) = world.host() {
            let host = &world.nodes[usize::try_from(host).unwrap()];
            world.checks.history(&host.toy);
        }
    } else if had_quorum {
        let text = format!("I9: no host that all follow: {}", world.summary());
        world.checks.fail(text);
    }
    Outcome {
        violation: world.checks.violation.take(),
        terms: world.checks.terms,
        unclean: world.checks.unclean,
        had_quorum,
        recovered_us,
    }
}

/// Runs until `until`, with the crashes and returns that are due on the way.
fn run_to(world: &mut World, until: u64, crashes: &mut Vec<(u64, u64, bool)>) {
    loop {
        crashes.sort_unstable_by(|a, b| b.cmp(a));
        let Some(&(at, node, returns)) = crashes.last() else {
            break;
        };
        if at > until {
            break;
        }
        crashes.pop();
        world.run_until(at);
        let alive = world.nodes[usize::try_from(node).unwrap()].alive;
        if returns && !alive {
            world.restart(node);
        } else if !returns && alive {
            world.crash(node);
        }
    }
    world.run_until(until);
}

fn apply(
    world: &mut World,
    plan: &mut Plan,
    fault: Fault,
    ablation: Ablation,
    crashes: &mut Vec<(u64, u64, bool)>,
) {
    if world.trace {
        eprintln!("{:>9} {fault:?}", world.now);
    }
    let now = world.now;
    let count = u64::try_from(world.nodes.len()).unwrap();
    let host = world.host();
    let some = plan.prng.below(count);
    let chosen = |wants_host: bool| {
        if wants_host {
            host.unwrap_or(some)
        } else {
            some
        }
    };
    let in_group = |mask: u64, id: u64| mask >> (id % 64) & 1 == 1;
    let ids = 0..count;
    match fault {
        Fault::Crash { host, back_us } => {
            let node = chosen(host);
            world.crash(node);
            if let Some(us) = back_us {
                crashes.push((now + us, node, true));
            }
        }
        Fault::Pause { host, us } => world.pause(chosen(host), us),
        Fault::Cut { cut, mask, us } => {
            for from in ids.clone() {
                for to in ids.clone() {
                    let (one, other) = (in_group(mask, from), in_group(mask, to));
                    let is_cut = match cut {
                        Cut::All => one != other,
                        Cut::OneWay => one && !other,
                        Cut::Bridged => one != other && from != some && to != some,
                    };
                    if is_cut && from != to {
                        world.network.block(from, to, now + us);
                    }
                }
            }
        }
        Fault::Spike { more_us, us } => world.network.spike = Some((more_us, now + us)),
        Fault::Slow { us } => {
            world.network.slow.insert(some, us / 4);
        }
        Fault::HandOver { crash } => {
            let Some(host) = host else {
                return;
            };
            let target = world.nodes[usize::try_from(host).unwrap()]
                .terms
                .stream_to()
                .next();
            let begun = world.hand_over(host, None);
            if let (Some((of_target, after)), Some(target), true) = (crash, target, begun) {
                crashes.push((now + after, if of_target { target.0 } else { host }, false));
            }
        }
        Fault::Join => {
            if count < 10 {
                let policy = HostPolicy {
                    ablation,
                    fork_after_us: None,
                    ..HostPolicy::default()
                };
                world.add(policy, 100);
            }
        }
        Fault::Leave { host } => {
            let node = chosen(host);
            if world.nodes[usize::try_from(node).unwrap()].is_up(now) {
                world.leave(node);
            }
        }
    }
}

/// A run in which every new host, and every change of the standbys, is met by a partition at the
/// worst moment: the host and few others on one side, the rest on the other.
pub(crate) fn run_hunted(seed: u64, ablation: Ablation, trace: bool) -> Outcome {
    let mut prng = Prng::with_stream(seed, 3);
    let pick = |prng: &mut Prng, from: &[u64]| {
        from[usize::try_from(prng.below(from.len() as u64)).unwrap()]
    };
    let quality = Quality {
        rtt_us: pick(&mut prng, &[2000, 10_000, 40_000]),
        jitter_us: 1000,
        loss_ppm: 0,
        duplicate_ppm: 0,
        stale_ppm: 0,
        burst_ppm: 0,
    };
    let mut world = World::new(Network::new(quality, Prng::with_stream(seed, 4)));
    world.trace = trace;
    let count = pick(&mut prng, &[3, 4, 5, 5]);
    for _ in 0..count {
        let policy = HostPolicy {
            ablation,
            fork_after_us: None,
            ..HostPolicy::default()
        };
        let id = world.add(policy, i64::try_from(prng.below(1001)).unwrap() - 500);
        world.nodes[usize::try_from(id).unwrap()].sends_every = sends_every(seed);
    }
    world.run_until(FAULTS_FROM_US);
    let mut seen = (0, 0);
    let mut cut_until = world.now;
    while world.checks.violation.is_none() && world.now < FAULTS_UNTIL_US {
        let next = world.now + 1000;
        world.run_until(next);
        let now = world.now;
        if now.is_multiple_of(200_000) {
            let node = usize::try_from(prng.below(count)).unwrap();
            let stalls = u16::try_from(prng.below(6)).unwrap();
            world.nodes[node].terms.set_load(stalls, 0);
        }
        let Some(host) = world.host() else {
            continue;
        };
        let roster = world.nodes[usize::try_from(host).unwrap()].terms.roster();
        let number = (roster.term.0, roster.version);
        let is_new_term = number.0 != seen.0;
        let is_new = number != seen;
        seen = number;
        if !is_new || (!is_new_term && (now < cut_until || prng.below(2) == 0)) {
            continue;
        }
        // A moment later, with the first standby or whoever comes.
        let standby = roster.standbys.first().map(|id| id.0);
        world.network.blocked_clear();
        let until = world.now + prng.below(40_000);
        world.run_until(until);
        let mut near = vec![host];
        near.extend(standby.filter(|_| prng.below(4) > 0));
        if prng.below(4) == 0 {
            near.push(prng.below(count));
        }
        let us = 200_000 + prng.below(900_000);
        cut_until = world.now + us;
        for from in 0..count {
            for to in 0..count {
                if near.contains(&from) != near.contains(&to) {
                    world.network.block(from, to, cut_until);
                }
            }
        }
        if prng.below(2) == 0 {
            world.network.spike = Some((140_000, world.now + 600_000));
        }
        if trace {
            eprintln!("{:>9} {near:?} are cut off for {us} us", world.now);
        }
    }
    finish(world)
}
