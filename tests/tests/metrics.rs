//! What a session publishes through the `metrics` facade is what its nodes counted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use phalanx::Session;
use phalanx::metrics::Feed;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::link::memory::MemoryHub;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Start};
use phalanx::netcode::session::statistics::Body;
use phalanx::prelude::*;
use phalanx_tests::cluster::{Cluster, ClusterOf};
use phalanx_tests::toy;
use phalanx_tests::yard::{self, Pusher};

/// Keeps every value, under its name and labels as text.
#[derive(Default)]
struct Notebook {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Samples>>>,
}

#[derive(Default)]
struct Samples(Mutex<Vec<f64>>);

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

impl Notebook {
    fn counter(&self, name: &str) -> u64 {
        let counters = self.counters.lock().unwrap();
        counters.get(name).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    fn gauge(&self, name: &str) -> f64 {
        let gauges = self.gauges.lock().unwrap();
        let value = gauges
            .get(name)
            .unwrap_or_else(|| panic!("no gauge {name}"));
        f64::from_bits(value.load(Ordering::Relaxed))
    }

    fn samples(&self, name: &str) -> Vec<f64> {
        let histograms = self.histograms.lock().unwrap();
        let samples = histograms
            .get(name)
            .map(|samples| samples.0.lock().unwrap().clone());
        samples.unwrap_or_default()
    }
}

fn text(key: &Key) -> String {
    let labels = key
        .labels()
        .map(|label| format!(" {}={}", label.key(), label.value()));
    key.name().to_owned() + &labels.collect::<String>()
}

impl Recorder for Notebook {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.counters.lock().unwrap();
        Counter::from_arc(Arc::clone(counters.entry(text(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.gauges.lock().unwrap();
        Gauge::from_arc(Arc::clone(gauges.entry(text(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.histograms.lock().unwrap();
        Histogram::from_arc(Arc::clone(histograms.entry(text(key)).or_default()))
    }
}

#[test]
fn a_host_publishes_what_it_counted_each_thing_once() {
    let host = HostConfig {
        start: Start::Players(1),
        ..HostConfig::new(toy::game(), 2)
    };
    let mut cluster = Cluster::new(host, Conditions::from_rtt(60_000, 50_000), 3);
    for name in ["one", "two"] {
        cluster.join(JoinConfig::new(toy::game(), name));
    }
    let (notebook, mut feed) = (Notebook::default(), Feed::default());
    for _ in 0..50 {
        cluster.run_us(100_000);
        let (now, node) = (cluster.now_of(0), cluster.node(0));
        metrics::with_local_recorder(&notebook, || feed.update(now, node));
    }
    // What is in between is published by the next update; here at once, and only once.
    for _ in 0..2 {
        metrics::with_local_recorder(&notebook, || feed.publish(cluster.node(0)));
    }
    let node = cluster.node(0);
    assert_eq!(
        notebook.counter("phalanx_ticks_total"),
        node.statistics().ticks
    );
    assert_eq!(notebook.gauge("phalanx_players"), 2.0);
    assert_eq!(
        notebook.gauge("phalanx_tick"),
        f64::from(node.tick().number())
    );
    let links: Vec<_> = node.links().collect();
    assert_eq!(links.len(), 2);
    for link in links {
        let member = link.member.0;
        let of = |name: &str| notebook.counter(&format!("phalanx_link_{name} member={member}"));
        let statistics = link.statistics;
        assert_eq!(of("datagrams_sent_total"), statistics.datagrams_sent);
        assert_eq!(
            of("datagrams_received_total"),
            statistics.datagrams_received
        );
        assert_eq!(of("inputs_late_total"), statistics.inputs_late);
        for body in Body::ALL {
            let of = |direction: &str| {
                let name = format!("phalanx_link_bytes_{direction}_total");
                notebook.counter(&format!("{name} member={member} body={}", body.name()))
            };
            assert_eq!(of("sent"), statistics.sent.of(body), "{}", body.name());
            assert_eq!(
                of("received"),
                statistics.received.of(body),
                "{}",
                body.name()
            );
        }
        // Once a second, and twice at the end.
        let trips = notebook.samples(&format!("phalanx_link_rtt_seconds member={member}"));
        assert!((5..=8).contains(&trips.len()), "{trips:?}");
        assert!(
            trips.iter().all(|trip| (0.06..0.09).contains(trip)),
            "{trips:?}"
        );
        let loss = notebook.gauge(&format!("phalanx_link_loss_ratio member={member}"));
        assert_eq!(loss, f64::from(link.loss) / 256.0);
    }
}

#[test]
fn an_inspected_host_publishes_every_bit_of_the_state_by_field() {
    let config = HostConfig {
        start: Start::Players(1),
        ..HostConfig::new(yard::game(), 2)
    };
    let mut cluster = ClusterOf::<Pusher>::new(config, Conditions::from_rtt(60_000, 0), 4);
    for name in ["one", "two"] {
        cluster.join(JoinConfig::new(yard::game(), name));
    }
    cluster.driver(0).node_mut().inspect(true);
    let (notebook, mut feed) = (Notebook::default(), Feed::default());
    for _ in 0..40 {
        cluster.run_us(100_000);
        let (now, node) = (cluster.now_of(0), cluster.node(0));
        metrics::with_local_recorder(&notebook, || feed.update(now, node));
    }
    metrics::with_local_recorder(&notebook, || feed.publish(cluster.node(0)));
    for link in cluster.node(0).links() {
        let member = link.member.0;
        let counters = notebook.counters.lock().unwrap();
        let of_member = format!("phalanx_state_bits_total member={member} ");
        let bits: Vec<u64> = counters
            .iter()
            .filter(|(name, _)| name.starts_with(&of_member))
            .map(|(_, count)| count.load(Ordering::Relaxed))
            .collect();
        // Each row is rounded down to whole bits.
        let (sum, rows) = (bits.iter().sum::<u64>(), bits.len() as u64);
        let sent = link.statistics.sent.of(Body::State) * 8;
        assert!(sum <= sent && sum + rows >= sent, "{sum} of {sent}");
        assert!(rows >= 8, "{counters:?}");
        assert!(counters.contains_key(&format!("{of_member}kind=Body field=at")));
    }
}

#[test]
fn a_session_publishes_by_itself_to_its_last_tick() {
    let game = Game::builder("metrics-test")
        .input::<u8>()
        .systems(|| || {})
        .build()
        .unwrap();
    let config = HostConfig {
        plays: true,
        start: Start::Players(1),
        last_tick: Some(Tick::new(5)),
        ..HostConfig::new(game.info("1"), 1)
    };
    let link = MemoryHub::new().link();
    let mut session = Session::host(&game, config, link, |_, _: &World| 0_u8).unwrap();
    let notebook = Notebook::default();
    metrics::with_local_recorder(&notebook, || session.run(|_session, _event| {}));
    assert_eq!(notebook.counter("phalanx_ticks_total"), 5);
    assert_eq!(notebook.gauge("phalanx_tick"), 5.0);
}
