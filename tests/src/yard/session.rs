//! Sessions in the yard, as tests open them.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::StateSyncStatistics;
use phalanx::netcode::session::config::{HostConfig, InputDelay, JoinConfig, Role, Start};

use super::{Plan, Pusher, game};
use crate::cluster::{ClusterOf, Index};

/// A cluster that plays in the yard.
pub type Cluster = ClusterOf<Pusher>;

/// The settings of a host with so many slots, whose session begins with so many players.
#[must_use]
pub fn host(slots: u8, players: u8) -> HostConfig {
    HostConfig {
        start: Start::Players(players),
        ..HostConfig::new(game(), slots)
    }
}

/// The settings of a player that predicts, and whose hero reacts at once.
#[must_use]
pub fn player(name: &str) -> JoinConfig {
    JoinConfig {
        prediction_ticks: 16,
        input_delay: InputDelay::Adaptive { min: 0, max: 30 },
        ..JoinConfig::new(game(), name)
    }
}

/// The settings of somebody who watches.
#[must_use]
pub fn spectator(name: &str) -> JoinConfig {
    JoinConfig {
        role: Role::Spectator,
        ..JoinConfig::new(game(), name)
    }
}

/// What `index` counts.
///
/// # Panics
/// If it has no session yet.
#[must_use]
pub fn statistics(cluster: &Cluster, index: Index) -> StateSyncStatistics {
    cluster.node(index).state_sync().expect("state-sync mode")
}

/// A session of players, as many as `host` waits for, who predict and play by `plan`. The clocks of
/// the clients differ from the host's by `drift_ppm` millionths, to either side.
#[must_use]
pub fn cluster(
    host: HostConfig,
    plan: Plan,
    network: Conditions,
    drift_ppm: i32,
    seed: u64,
) -> Cluster {
    let players = match host.start {
        Start::Players(players) => players,
        Start::Manual => host.slots,
    };
    let mut cluster = Cluster::new(host, network, seed);
    for number in 1..players {
        let config = JoinConfig {
            prediction_ticks: 12,
            ..JoinConfig::new(game(), &format!("member {number}"))
        };
        let drift_ppm = if number % 2 == 0 {
            drift_ppm
        } else {
            -drift_ppm
        };
        cluster.join_drifting(config, 0, drift_ppm);
    }
    for member in &mut cluster.members {
        member.driver.player_mut().plan = plan;
    }
    cluster
}
