//! Hosting of a state-sync session moves by itself: members elect another host when theirs is gone,
//! and a host that hands over loses nothing. Whole nodes, bytes and all, in virtual time.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::tick::Tick;
use phalanx_tests::reign::Reign;
use phalanx_tests::yard::Plan;

fn open(plan: Plan, players: u8, conditions: Conditions, seed: u64, test: &str) -> Reign {
    let repeat = format!("SEED={seed} cargo test -p phalanx-tests --test state_sync_elections {test}");
    Reign::new(plan, players, conditions, seed, &repeat)
}

fn seeds(usual: u64) -> Vec<u64> {
    let read = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match (read("SEED"), read("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(usual)).collect(),
    }
}

fn lively() -> Plan {
    Plan {
        bodies: 100,
        is_lively: true,
        ..Plan::default()
    }
}

/// The same session runs twice, once with a handover: nothing that happens depends on it.
#[test]
fn a_handover_changes_nothing() {
    for seed in seeds(4) {
        let players = 3 + u8::try_from(seed % 3).expect("small");
        let test = "a_handover_changes_nothing";
        let plan = Plan {
            spawns: false,
            ..lively()
        };
        let conditions = Conditions::from_rtt(50_000, 0);
        let mut calm = open(plan, players, conditions, seed, test);
        let mut moved = open(plan, players, conditions, seed, test);
        calm.run(8_000_000);
        moved.run(1_000_000);
        moved.forget_gaps();
        let before = moved.losses();
        let now = moved.cluster.now_of(0);
        let node = moved.cluster.driver(0).node_mut();
        let target = node.request_handover(now, None).expect("a standby can host");
        moved.run_until(3_000_000, |it| {
            it.host().is_some() && it.host() == it.index_of(target)
        });
        moved.assert_recovers(4_000_000);
        println!(
            "seed {seed}: {players} players, gap {} ms",
            moved.longest_gap_us() / 1000
        );
        assert_eq!(moved.losses(), before, "{}", moved.seed);
        let (calm, there) = (calm.history(), moved.history());
        let last = *there.keys().next_back().expect("ticks ran");
        assert!(last > Tick::new(400), "{}: {last}", moved.seed);
        let mut compared = 0;
        for (tick, ran) in &there {
            let Some(other) = calm.get(tick) else { continue };
            assert_eq!(other.inputs, ran.inputs, "{}: inputs at {tick}", moved.seed);
            assert_eq!(other.bodies, ran.bodies, "{}: bodies at {tick}", moved.seed);
            compared += 1;
        }
        assert!(compared > 350, "{}: {compared}", moved.seed);
    }
}
