//! A session's statistics as metrics, through the [`metrics`](https://docs.rs/metrics) facade.
//!
//! Only with the feature `metrics`. A program installs a recorder of its choice; without one, all
//! of this does next to nothing. [`Session::update`](crate::Session::update) feeds it by itself. A
//! program that drives a [`Node`] otherwise keeps a [`Feed`] and updates it.
//!
//! These names and labels are stable. `member` is the number of the member at the other end of the
//! link, `body` one of [`Body`], `reason` one of [`DropReason`].
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `phalanx_ticks_total` | counter | | ticks that ran for the first time |
//! | `phalanx_ticks_again_total` | counter | | ticks that ran again after a wrong guess |
//! | `phalanx_rollbacks_total` | counter | | rollbacks |
//! | `phalanx_stalls_total` | counter | | ticks that could not run when they were due |
//! | `phalanx_inputs_replaced_total` | counter | | own inputs that came too late |
//! | `phalanx_desyncs_total` | counter | | desyncs that were found |
//! | `phalanx_datagrams_dropped_total` | counter | `reason` | ignored datagrams |
//! | `phalanx_tick` | gauge | | newest tick that ran |
//! | `phalanx_members` | gauge | | members of the session |
//! | `phalanx_players` | gauge | | members with a slot |
//! | `phalanx_input_delay_ticks` | gauge | | ticks from sampling an input to its tick |
//! | `phalanx_longest_stall_seconds` | gauge | | longest time that a tick was late |
//! | `phalanx_link_rtt_seconds` | histogram | `member` | round trip, smoothed, once a second |
//! | `phalanx_link_jitter_seconds` | gauge | `member` | deviation of the round trip |
//! | `phalanx_link_loss_ratio` | gauge | `member` | share of its datagrams that got lost |
//! | `phalanx_link_loss_sent_ratio` | gauge | `member` | share of ours that it missed |
//! | `phalanx_link_datagrams_sent_total` | counter | `member` | datagrams to it |
//! | `phalanx_link_datagrams_received_total` | counter | `member` | datagrams from it |
//! | `phalanx_link_bytes_sent_total` | counter | `member`, `body` | UDP payload to it |
//! | `phalanx_link_bytes_received_total` | counter | `member`, `body` | UDP payload from it |
//! | `phalanx_link_datagrams_dropped_total` | counter | `member`, `reason` | ignored ones from it |
//! | `phalanx_link_inputs_late_total` | counter | `member` | its inputs that were replaced |
//! | `phalanx_link_stalls_total` | counter | `member` | stalls that waited for it |
//! | `phalanx_state_bits_total` | counter | `member`, `kind`, `field` | where bits of the state to it went, while [`Node::inspect`] is on |
//! | `phalanx_state_entities` | gauge | `member` | entities that it sees, likewise |
//!
//! `kind` and `field` are names of the schema. Without a kind stand ids and flags of entities, and
//! under the field `heads` what is around bodies; so all bits of a member sum up to its bytes with
//! `body` `state` since the inspector is on.
//!
//! A counter appears with its first count. The gauges of a member that has left keep their last
//! value, for the facade cannot take one back.

use std::collections::BTreeMap;

use metrics::{counter, gauge, histogram};
use phalanx_netcode::id::MemberId;
use phalanx_netcode::node::{LinkQuality, Node};
use phalanx_netcode::session::statistics::{
    Body, BodyBytes, DropReason, Drops, NodeStatistics, PeerStatistics,
};
use phalanx_netcode::tick::Tick;
use phalanx_netcode::time::Time;

/// Microseconds between two publications.
const PERIOD_US: u64 = 1_000_000;

/// What was published of one node; see the [module](self).
#[derive(Debug, Default)]
pub struct Feed {
    published_at: Option<Time>,
    is_complete: bool,
    node: NodeStatistics,
    links: BTreeMap<MemberId, PeerStatistics>,
    accounts: BTreeMap<MemberId, Account>,
}

/// What was published of a client's account.
#[derive(Debug, Default)]
struct Account {
    from: Tick,
    /// Whole bits by kind and field.
    bits: BTreeMap<(String, String), u64>,
}

impl Feed {
    /// Publishes if a second has passed since the last time, or the session has just ended. `now`
    /// is the time that the node is driven with.
    pub fn update(&mut self, now: Time, node: &Node) {
        let ends = node.is_over() && !self.is_complete;
        let is_due = self
            .published_at
            .is_none_or(|at| now.micros_since(at) >= PERIOD_US);
        if ends || is_due {
            self.published_at = Some(now);
            self.is_complete = node.is_over();
            self.publish(node);
        }
    }

    /// Publishes what `node` has counted since the last time.
    pub fn publish(&mut self, node: &Node) {
        self.publish_node(node);
        let links: BTreeMap<_, _> = node.links().map(|link| (link.member, link)).collect();
        // Members that are gone do not come back under their number, but for a resumed link.
        self.links.retain(|member, _| links.contains_key(member));
        for link in links.values() {
            let old = self.links.insert(link.member, link.statistics);
            publish_link(link, &old.unwrap_or_default());
        }
        self.publish_accounts(node);
    }

    fn publish_accounts(&mut self, node: &Node) {
        let schema = &node.game().schema;
        let inspections: BTreeMap<_, _> = node.inspections().map(|it| (it.member, it)).collect();
        self.accounts.retain(|member, account| {
            let present = inspections.get(member);
            present.is_some_and(|inspection| inspection.from == account.from)
        });
        for (member, inspection) in inspections {
            let account = self.accounts.entry(member).or_default();
            account.from = inspection.from;
            let member = member.to_string();
            gauge!("phalanx_state_entities", "member" => member.clone())
                .set(f64::from(inspection.in_view));
            for row in inspection.breakdown(schema).rows {
                let labels = [
                    ("member", member.clone()),
                    ("kind", row.kind.clone()),
                    ("field", row.field.clone()),
                ];
                let published = account.bits.entry((row.kind, row.field)).or_default();
                let bits = whole(row.bits);
                if bits > *published {
                    counter!("phalanx_state_bits_total", &labels).increment(bits - *published);
                    *published = bits;
                }
            }
        }
    }

    fn publish_node(&mut self, node: &Node) {
        let (new, old) = (node.statistics(), &self.node);
        count("phalanx_ticks_total", new.ticks, old.ticks);
        count(
            "phalanx_ticks_again_total",
            new.ticks_again,
            old.ticks_again,
        );
        count("phalanx_rollbacks_total", new.rollbacks, old.rollbacks);
        count("phalanx_stalls_total", new.stalls, old.stalls);
        let (replaced, before) = (new.inputs_replaced, old.inputs_replaced);
        count("phalanx_inputs_replaced_total", replaced, before);
        count("phalanx_desyncs_total", new.desyncs, old.desyncs);
        for (reason, more) in dropped(&new.drops, &old.drops) {
            counter!("phalanx_datagrams_dropped_total", "reason" => reason).increment(more);
        }
        gauge!("phalanx_tick").set(f64::from(node.tick().number()));
        gauge!("phalanx_members").set(float(node.roster().members().len() as u64));
        gauge!("phalanx_players").set(float(node.roster().players() as u64));
        gauge!("phalanx_input_delay_ticks").set(f64::from(node.input_delay()));
        gauge!("phalanx_longest_stall_seconds").set(seconds(new.longest_stall_us));
        self.node = *new;
    }
}

fn publish_link(link: &LinkQuality, old: &PeerStatistics) {
    let member = link.member.to_string();
    let new = &link.statistics;
    // A member that resumes gets a new link, which counts from nothing.
    let fresh = PeerStatistics::default();
    let is_new =
        new.datagrams_sent < old.datagrams_sent || new.datagrams_received < old.datagrams_received;
    let old = if is_new { &fresh } else { old };

    if let Some(rtt_us) = link.rtt_us {
        histogram!("phalanx_link_rtt_seconds", "member" => member.clone()).record(seconds(rtt_us));
        gauge!("phalanx_link_jitter_seconds", "member" => member.clone())
            .set(seconds(link.jitter_us));
    }
    gauge!("phalanx_link_loss_ratio", "member" => member.clone()).set(ratio(link.loss));
    gauge!("phalanx_link_loss_sent_ratio", "member" => member.clone()).set(ratio(new.loss_sent));
    let counters = [
        (
            "phalanx_link_datagrams_sent_total",
            new.datagrams_sent - old.datagrams_sent,
        ),
        (
            "phalanx_link_datagrams_received_total",
            new.datagrams_received - old.datagrams_received,
        ),
        (
            "phalanx_link_inputs_late_total",
            new.inputs_late.saturating_sub(old.inputs_late),
        ),
        (
            "phalanx_link_stalls_total",
            new.stalls.saturating_sub(old.stalls),
        ),
    ];
    for (name, more) in counters.into_iter().filter(|&(_, more)| more > 0) {
        counter!(name, "member" => member.clone()).increment(more);
    }
    let directions = [
        ("phalanx_link_bytes_sent_total", &new.sent, &old.sent),
        (
            "phalanx_link_bytes_received_total",
            &new.received,
            &old.received,
        ),
    ];
    for (name, new, old) in directions {
        for (body, more) in grown(new, old) {
            counter!(name, "member" => member.clone(), "body" => body).increment(more);
        }
    }
    for (reason, more) in dropped(&new.drops, &old.drops) {
        let labels = [("member", member.clone()), ("reason", reason.to_owned())];
        counter!("phalanx_link_datagrams_dropped_total", &labels).increment(more);
    }
}

fn count(name: &'static str, new: u64, old: u64) {
    if new > old {
        counter!(name).increment(new - old);
    }
}

fn grown(new: &BodyBytes, old: &BodyBytes) -> impl Iterator<Item = (&'static str, u64)> {
    Body::ALL
        .map(|body| (body.name(), new.of(body).saturating_sub(old.of(body))))
        .into_iter()
        .filter(|&(_, more)| more > 0)
}

fn dropped(new: &Drops, old: &Drops) -> impl Iterator<Item = (&'static str, u64)> {
    DropReason::ALL
        .map(|reason| (reason.name(), new.of(reason).saturating_sub(old.of(reason))))
        .into_iter()
        .filter(|&(_, more)| more > 0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are floats; 2^53 is enough"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of bits; fractions follow when they are whole"
)]
const fn whole(bits: f64) -> u64 {
    bits as u64
}

fn seconds(us: u64) -> f64 {
    float(us) / 1e6
}

/// Of a share in 1/256.
fn ratio(share: u8) -> f64 {
    f64::from(share) / 256.0
}
