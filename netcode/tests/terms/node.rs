//! What a node of the simulated session is, and what it sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use phalanx_netcode::migration::{HostPolicy, Terms};
use phalanx_netcode::tick::Tick;
use phalanx_netcode::time::Time;

use crate::toy::{Record, Toy};

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A term message, as bytes.
    Term(Arc<[u8]>),
    /// Host to member: its ticks after `after`, and when they left on its clock. As a tick datagram
    /// it is acked.
    Records {
        term: u32,
        sent: Time,
        after: u32,
        records: Arc<[Record]>,
    },
    /// Member to host: what it holds, its inputs that are not safe yet, and its ack: when the newest
    /// of the host's datagrams left that it has accepted.
    Inputs {
        term: u32,
        held: u32,
        seqs: Arc<[u32]>,
        ack: Option<Time>,
    },
    /// A sign of life on a warm link.
    Ping,
    /// A process that wants to be a member.
    Join { incarnation: u32 },
}

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) incarnation: u32,
    pub(crate) terms: Terms,
    pub(crate) toy: Toy,
    pub(crate) alive: bool,
    pub(crate) paused_until: u64,
    pub(crate) policy: HostPolicy,
    pub(crate) offset_us: u64,
    pub(crate) ppm: i64,
    pub(crate) wake_at: u64,
    pub(crate) start: Tick,
    pub(crate) counter: u32,
    pub(crate) next_input: u32,
    pub(crate) unsafe_inputs: Vec<u32>,
    /// Up to where it has looked for its inputs among what is safe, and in which term.
    pub(crate) looked_at: (u32, usize),
    pub(crate) received: BTreeMap<u64, Vec<u32>>,
    pub(crate) held_by: BTreeMap<u64, u32>,
    pub(crate) ticks: u64,
    /// The newest of the host's datagrams that it has accepted: term, and when it left.
    pub(crate) accepted: Option<(u32, Time)>,
    /// As host it leaves datagrams out: of so many ticks one is sent.
    pub(crate) sends_every: u64,
    /// Records of a term that it does not know yet.
    pub(crate) early: Option<(u64, Body)>,
    /// When the player was shown a tick last, and the longest pause since it was reset.
    pub(crate) shown_at: Option<u64>,
    pub(crate) gap_us: u64,
    pub(crate) forked: bool,
}

impl Node {
    pub(crate) fn local(&self, now: u64) -> Time {
        let drift = i64::try_from(now).unwrap() * self.ppm / 1_000_000;
        Time::from_micros(self.offset_us + now.checked_add_signed(drift).unwrap())
    }

    pub(crate) fn global(&self, at: Time) -> u64 {
        let since = at.micros().saturating_sub(self.offset_us);
        let drift = i64::try_from(since.min(1 << 50)).unwrap() * self.ppm / 1_000_000;
        let mut now = since.saturating_sub_signed(drift).saturating_sub(2);
        while now < 1 << 50 && self.local(now) < at {
            now += 1;
        }
        now
    }

    pub(crate) fn accept(&mut self, term: u32, sent: Time) {
        self.accepted = self.accepted.max(Some((term, sent)));
    }

    pub(crate) fn is_up(&self, now: u64) -> bool {
        self.alive && self.paused_until <= now
    }

    pub(crate) fn may_act(&self, now: u64) -> bool {
        self.is_up(now) && self.terms.may_act(self.local(now))
    }
}
