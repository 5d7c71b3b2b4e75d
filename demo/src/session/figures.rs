//! What a session says of itself: to its board while it runs, and at its end.

use std::fs;

use phalanx::netcode::link::udp::UdpStatistics;
use phalanx::netcode::tick::Tick;
use phalanx::{EcsSimulation, ShownWorld};

use super::board::Board;
use super::{Baseline, End, HEADER_BYTES, Outcome, Session, board};
use crate::arena::standings;
use crate::view;

/// Ticks over which a status line counts bytes.
const RECENT_TICKS: u32 = 60;

/// What went over the link lately, whatever this node is by now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    /// Tick, bytes sent and bytes received when counting began.
    since: (Tick, u64, u64),
    /// kbit/s that went to each link and came from each, in the last period.
    sent: u64,
    received: u64,
}

impl Recent {
    fn count(&mut self, tick: Tick, udp: &UdpStatistics, links: u64) {
        let bytes = |bytes, datagrams| bytes + HEADER_BYTES * datagrams;
        let sent = bytes(udp.bytes_sent, udp.datagrams_sent);
        let received = bytes(udp.bytes_received, udp.datagrams_received);
        let (from, sent_before, received_before) = self.since;
        let link_ticks = u64::from(tick.since(from)) * links;
        if from > Tick::ZERO && tick.since(from) < RECENT_TICKS {
            return;
        }
        // 8 bits, 60 ticks per second.
        let kbit_s = |bytes: u64| (bytes * 480).checked_div(link_ticks * 1000).unwrap_or(0);
        if from > Tick::ZERO {
            self.sent = kbit_s(sent - sent_before);
            self.received = kbit_s(received - received_before);
        }
        self.since = (tick, sent, received);
    }
}

impl Session {
    /// Keeps the counts between the first and the last tick.
    pub(super) fn count_traffic(&mut self) {
        let node = self.driver.node();
        let tick = node.tick();
        self.log.players = self.log.players.max(node.roster().players());
        let links = u64::try_from(node.links().count()).unwrap_or(0);
        let udp = self.link.inner().statistics();
        self.recent.count(tick, &udp, links);
        // Hosts and clients send different things: whoever is both counts as what it was first.
        self.has_changed_role |= node.is_host() != self.is_founder;
        if tick == Tick::ZERO || self.log.end.is_some() || self.has_changed_role {
            return;
        }
        let Some(base) = self.baseline else {
            self.baseline = Some(Baseline { tick, udp });
            return;
        };
        let traffic = &mut self.log.traffic;
        let before = traffic.until.max(base.tick);
        traffic.link_ticks += u64::from(tick.since(before)) * links;
        traffic.until = tick;
        traffic.datagrams_sent = udp.datagrams_sent - base.udp.datagrams_sent;
        // Whoever sends nonsense to this port shall not blur what its clients cost.
        traffic.datagrams_refused = udp.drops.total() - base.udp.drops.total();
        traffic.datagrams_received = (udp.datagrams_received - base.udp.datagrams_received)
            .saturating_sub(traffic.datagrams_refused);
        let with_headers = |bytes, datagrams| bytes + HEADER_BYTES * datagrams;
        traffic.bytes_sent =
            with_headers(udp.bytes_sent - base.udp.bytes_sent, traffic.datagrams_sent);
        traffic.bytes_received = with_headers(
            (udp.bytes_received - base.udp.bytes_received)
                .saturating_sub(udp.bytes_refused - base.udp.bytes_refused),
            traffic.datagrams_received,
        );
    }

    fn rtt_us(&self) -> Option<u64> {
        let trips: Vec<u64> = self
            .driver
            .node()
            .links()
            .filter_map(|link| link.rtt_us)
            .collect();
        let count = u64::try_from(trips.len()).unwrap_or(0);
        trips.iter().sum::<u64>().checked_div(count)
    }

    pub(super) fn show(&mut self, board: &Board) {
        let node = self.driver.node();
        self.log.remember_all(node);
        let rtt_us = self.rtt_us();
        // Links are gone by the end.
        self.log.rtt_us = rtt_us.or(self.log.rtt_us);
        let line = self.status_line(rtt_us);
        let view = match (self.draws, self.driver.simulation()) {
            (Some(canvas), Some(simulation)) => {
                let shown = self.eye.as_ref().and_then(|eye| eye.shown(&self.driver));
                let shown = shown.unwrap_or_else(|| ShownWorld::new(simulation, None));
                view::draw(shown, simulation.world(), canvas, &self.log.names)
            }
            (None, _) | (_, None) => String::new(),
        };
        let node = self.driver.node();
        let figures = board::figures(node, rtt_us, &self.link.inner().statistics());
        let inspector = self.inspector.as_mut();
        let accounts = inspector.map(|inspector| {
            let table = inspector.poll_table(&self.log.names);
            self.log.news.extend(table);
            inspector.accounts.figures()
        });
        let mut status = board.status();
        status.tick = node.tick().number();
        if self.log.end.is_none() {
            // At the end members leave one by one: that is not how the match stood.
            status.line = line;
        }
        status.view = view;
        status.figures = figures;
        status.accounts = accounts.unwrap_or_default();
        status.term = node.session().term.0;
        status.is_host = node.is_host();
        status.is_killed = self.log.end == Some(End::Killed);
        status.news.append(&mut self.log.news);
    }

    fn status_line(&self, rtt_us: Option<u64>) -> String {
        let node = self.driver.node();
        if let (Some(host), true) = (self.host_address(), node.roster().members().is_empty()) {
            return format!("asking {host} to join");
        }
        let statistics = node.statistics();
        let hosting = if node.terms().is_some() {
            let host = self.log.who(node.host_member());
            format!("  host {host}, term {}", node.session().term.0)
        } else {
            String::new()
        };
        let head = format!(
            "tick {}  players {}{hosting}  rtt {}  delay {}  stalls {}  replaced {}",
            node.tick(),
            node.roster().players(),
            rtt_us.map_or_else(|| "-".to_owned(), |us| format!("{} ms", us / 1000)),
            node.input_delay(),
            statistics.stalls,
            statistics.inputs_replaced,
        );
        let Some(sync) = node.state_sync() else {
            let (rollbacks, desyncs) = (statistics.rollbacks, statistics.desyncs);
            return format!("{head}  rollbacks {rollbacks}  desyncs {desyncs}");
        };
        if node.is_host() {
            format!(
                "{head}  {} kbit/s per client  snapshots {}",
                self.recent.sent, sync.snapshots
            )
        } else {
            format!(
                "{head}  {} kbit/s down  corrections {}",
                self.recent.received, sync.corrections
            )
        }
    }

    pub(super) fn outcome(mut self) -> Outcome {
        let rtt_us = self.rtt_us().or(self.log.rtt_us);
        if self.log.end == Some(End::Killed) {
            self.link.into_inner().abandon();
        }
        let recording = self
            .driver
            .finish_recording()
            .map(|result| result.map(drop).map_err(|error| error.to_string()));
        if let (None, Some(file)) = (&recording, &self.record)
            && fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() == 0)
        {
            // The match never began, and this is the file that was made for it.
            let _ = fs::remove_file(file);
        }
        let own_hash = self.driver.state_hash();
        let node = self.driver.node();
        let sync = node.state_sync();
        let authority = sync.and_then(|sync| sync.authority);
        // A client holds a part of the state, in steps: its own hash says nothing.
        let is_whole = self.eye.is_none() || node.is_host();
        let world = self.driver.simulation().map(EcsSimulation::world);
        Outcome {
            host: self.log.who(node.host_member()),
            host_name: self.log.name_of(node.host_member()),
            end: self.log.end.unwrap_or(End::Left),
            slot: node.session().slot,
            is_founder: self.is_founder,
            hosts: node.is_host(),
            host_member: node.host_member(),
            term: node.session().term,
            session: node.session().session,
            migrations: self.log.changes.figures(),
            players: self.log.players,
            tick: authority.map_or(node.tick(), |(tick, _)| tick),
            took_part: world.is_some(),
            state_hash: authority
                .map(|(_, hash)| hash)
                .or(own_hash.filter(|_| is_whole)),
            sync,
            shown: self.eye.map(|eye| eye.errors().clone()),
            statistics: *node.statistics(),
            desyncs: self.log.desyncs,
            rtt_us,
            traffic: self.log.traffic,
            standings: world.map(standings).unwrap_or_default(),
            accounts: self.inspector.map(|inspector| inspector.accounts),
            names: self.log.names,
            recording,
        }
    }
}
