//! What it costs that hosting may move: the bytes that members exchange beside their ticks while
//! nothing happens. Virtual time, so the figures are exact.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig, MigrationConfig, Start};
use phalanx_tests::cluster::{Bot, ClusterOf, Index};
use phalanx_tests::succession::Succession;
use phalanx_tests::yard::{self, Plan, Pusher};

type Session = Succession<Bot>;

const PLAYERS: u8 = 8;
const SECONDS: u64 = 20;

fn session(rtt_us: u64, loss_ppm: u32, seed: u64) -> Session {
    let host = Session::elected(PLAYERS, Gate::Paced);
    let guests = Session::guests(PLAYERS - 1);
    let conditions = Conditions::from_rtt(rtt_us, loss_ppm);
    let repeat = "cargo test -p phalanx-tests --test control_traffic";
    let mut session = Session::new(host, guests, conditions, seed, 240, repeat);
    // Until round trips are known, and everybody votes.
    session.run(10_000_000);
    session
}

/// Bytes of the datagrams beside ticks that a node has sent, to each other member.
fn sent(session: &Session, index: Index) -> Vec<u64> {
    let links = session.cluster.node(index).mesh_links();
    links.map(|link| link.statistics.bytes_sent).collect()
}

#[test]
fn idle_members_exchange_little_beside_their_ticks() {
    for (rtt_us, loss_ppm) in [(50_000, 0), (100_000, 0), (50_000, 50_000)] {
        let mut session = session(rtt_us, loss_ppm, 1);
        let all: Vec<Index> = (0..usize::from(PLAYERS)).collect();
        let voters = |session: &Session| {
            let terms = session.cluster.node(0).terms();
            terms.map_or(0, |terms| terms.roster().voter_count())
        };
        assert_eq!(voters(&session), usize::from(PLAYERS));
        let before: Vec<Vec<u64>> = all.iter().map(|&it| sent(&session, it)).collect();
        session.run(SECONDS * 1_000_000);
        for &index in &all {
            let links = sent(&session, index);
            let each = links.iter().zip(&before[index]);
            let each: Vec<u64> = each.map(|(now, then)| (now - then) / SECONDS).collect();
            let total: u64 = each.iter().sum();
            println!("RTT {rtt_us} us, loss {loss_ppm} ppm: {index} sends {total} B/s: {each:?}");
            assert!(total <= 1000, "{index} sends {total} B/s: {each:?}");
        }
        assert_eq!(session.host(), Some(0), "nobody had a reason to elect");
        let term = session.cluster.node(0).session().term;
        assert_eq!(term.0, 1);
    }
}

/// A world in which little happens: ticks go to voters all the same, since each ack of one saves a
/// heartbeat and its echo.
#[test]
fn idle_members_of_a_state_sync_session_do_too() {
    let host = HostConfig {
        start: Start::Players(PLAYERS),
        plays: true,
        migration: MigrationConfig::ELECTED,
        ..HostConfig::new(yard::game(), PLAYERS)
    };
    let mut cluster: ClusterOf<Pusher> = ClusterOf::new(host, Conditions::from_rtt(50_000, 0), 1);
    let plan = Plan {
        bodies: 0,
        is_lively: false,
        ..Plan::default()
    };
    cluster.driver(0).player_mut().plan = plan;
    for number in 1..PLAYERS {
        let index = cluster.join(JoinConfig::new(yard::game(), &format!("{number}")));
        cluster.driver(index).player_mut().plan = plan;
    }
    cluster.run_us(15_000_000);
    let sent = |cluster: &ClusterOf<Pusher>, index: Index| -> u64 {
        let links = cluster.node(index).mesh_links();
        links.map(|link| link.statistics.bytes_sent).sum()
    };
    let all: Vec<Index> = (0..usize::from(PLAYERS)).collect();
    let before: Vec<u64> = all.iter().map(|&it| sent(&cluster, it)).collect();
    let ticks: Vec<u64> = all
        .iter()
        .map(|&it| cluster.node(it).statistics().bytes_sent)
        .collect();
    cluster.run_us(SECONDS * 1_000_000);
    for &index in &all {
        let total = (sent(&cluster, index) - before[index]) / SECONDS;
        let with_ticks = (cluster.node(index).statistics().bytes_sent - ticks[index]) / SECONDS;
        println!("state-sync: {index} sends {total} B/s, {with_ticks} B/s with ticks and state");
        assert!(total <= 1000, "{index} sends {total} B/s");
    }
    assert!(cluster.node(0).is_host());
}
