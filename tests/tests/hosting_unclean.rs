//! A host that dies together with all its standbys: others go on, and all of them are told that
//! something may be missing.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::Gate;
use phalanx_tests::cluster::{Bot, Index};
use phalanx_tests::succession::Succession;

type Session = Succession<Bot>;

#[test]
fn where_all_standbys_die_with_the_host_everybody_is_told() {
    let wait = Gate::Wait {
        limit_us: 4_000_000,
    };
    for (seed, gate) in [(1, Gate::Paced), (2, wait)] {
        let host = Session::elected(8, gate);
        let guests = Session::guests(7);
        let conditions = Conditions::from_rtt(50_000, 0);
        let repeat = "cargo test -p phalanx-tests --test hosting_unclean";
        let mut session = Session::new(host, guests, conditions, seed, 300, repeat);
        session.run_until(20_000_000, |it| it.settled().number() > 60);
        let host = session.host().expect("one hosts");
        let terms = session.cluster.node(host).terms().expect("it is elected");
        let standbys = terms.roster().standbys.clone();
        let dying: Vec<Index> = standbys
            .iter()
            .filter_map(|&member| session.index_of(member))
            .chain([host])
            .collect();
        assert!(dying.len() > 1 && dying.len() < 5, "{dying:?}");
        for &index in &dying {
            session.cluster.crash(index);
        }
        let us = session.assert_recovers(8_000_000);
        assert!(
            us > 2_000_000,
            "standbys were given {us} µs to be heard again"
        );
        for index in session.alive() {
            let events = &session.cluster.members[index].events;
            let told = |event: &&Event| matches!(event, Event::DataLossPossible { .. });
            assert_eq!(
                events.iter().filter(told).count(),
                1,
                "member {index}, seed {seed}"
            );
        }
    }
}
