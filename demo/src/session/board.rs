//! What others see of a running session, and their wish that it stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx::netcode::link::udp::UdpStatistics;
use phalanx::netcode::node::Node;

/// What others see of a running session, and their wish that it stops.
#[derive(Debug, Default)]
pub struct Board {
    stop: Arc<AtomicBool>,
    status: Mutex<Status>,
}

/// How a session stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The newest tick.
    pub tick: u32,
    /// Figures in one line.
    pub line: String,
    /// The field and the players, if someone looks.
    pub view: String,
    /// Counters and gauges, by name.
    pub figures: Vec<(&'static str, f64)>,
    /// What clients are sent, if someone looks: by name and labels.
    pub accounts: Vec<(&'static str, String, f64)>,
    /// The term that the node is in.
    pub term: u32,
    /// Whether the node hosts.
    pub is_host: bool,
    /// Whether it has vanished, as it was told.
    pub is_killed: bool,
    /// What happened since the last look.
    pub news: Vec<String>,
}

impl Board {
    /// The flag that asks the session to stop; signal handlers set it.
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Asks the session to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes the status, and with it the news.
    #[must_use]
    pub fn look(&self) -> Status {
        let mut status = self.status();
        let seen = status.clone();
        status.news.clear();
        seen
    }

    /// The status, to bring up to date.
    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a host's operator wants to watch.
pub(super) fn figures(
    node: &Node,
    rtt_us: Option<u64>,
    udp: &UdpStatistics,
) -> Vec<(&'static str, f64)> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floats; 2^53 is enough"
    )]
    let float = |count: u64| count as f64;
    let statistics = node.statistics();
    let players = u64::try_from(node.roster().players()).unwrap_or(0);
    vec![
        ("tick", f64::from(node.tick().number())),
        ("players", float(players)),
        ("rtt_seconds", float(rtt_us.unwrap_or(0)) / 1e6),
        ("stalls_total", float(statistics.stalls)),
        ("rollbacks_total", float(statistics.rollbacks)),
        ("desyncs_total", float(statistics.desyncs)),
        (
            "inputs_late_total",
            float(node.links().map(|link| link.statistics.inputs_late).sum()),
        ),
        ("udp_datagrams_sent_total", float(udp.datagrams_sent)),
        ("udp_bytes_sent_total", float(udp.bytes_sent)),
        (
            "udp_datagrams_received_total",
            float(udp.datagrams_received),
        ),
        ("udp_bytes_received_total", float(udp.bytes_received)),
        ("udp_datagrams_refused_total", float(udp.drops.total())),
        ("datagrams_dropped_total", float(statistics.drops.total())),
    ]
}
