//! What a node knows of the other members, and what it sent when.

use crate::id::Term;
use crate::session::clock::Rtt;
use crate::tick::Tick;
use crate::time::Time;

/// Facts about one member.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) incarnation: u32,
    /// When anything arrived.
    pub(super) heard_at: Time,
    /// As the node measures it.
    pub(super) rtt_us: Option<u64>,
    /// As echoes measure it.
    rtt: Rtt,
    /// When it last said that it suspects the host of the roster.
    pub(super) suspects_at: Option<Time>,
    /// The highest term that it has promised anything for.
    pub(super) promised: Term,
    /// What it last said that it holds.
    pub(super) position: Tick,
    /// Voters that it hears, and what hosting there would cost.
    pub(super) report: Option<(u8, u64)>,
    /// When it was told of a newer term.
    pub(super) news_at: Time,
    /// Its word not to vote for another than this node.
    pub(super) lease_until: Time,
    /// The last term in which it echoed, when, and what it held then.
    pub(super) term: Term,
    pub(super) echoed_at: Time,
    pub(super) held: Tick,
    pub(super) version: u32,
    /// When it was sent the roster last, and how often.
    pub(super) told_at: Time,
    pub(super) told: u32,
}

impl Known {
    pub(super) fn new(incarnation: u32, now: Time) -> Self {
        Self {
            incarnation,
            heard_at: now,
            rtt_us: None,
            rtt: Rtt::default(),
            suspects_at: None,
            promised: Term(0),
            position: Tick::ZERO,
            report: None,
            news_at: Time::ZERO,
            lease_until: Time::ZERO,
            term: Term(0),
            echoed_at: now,
            held: Tick::ZERO,
            version: 0,
            told_at: Time::ZERO,
            told: 0,
        }
    }

    pub(super) fn sample_rtt(&mut self, us: u64) {
        self.rtt.sample(us);
    }

    /// The round trip with its usual deviation, in microseconds.
    pub(super) fn rtt_us(&self) -> Option<u64> {
        let own = self.rtt.smoothed_us();
        own.map(|us| us + 2 * self.rtt.deviation_us())
            .or(self.rtt_us)
    }

    /// The smoothed round trip, in microseconds.
    pub(super) fn mean_rtt_us(&self) -> Option<u64> {
        self.rtt_us.or(self.rtt.smoothed_us())
    }
}

/// Numbers of what asks for an echo, and when they were sent.
#[derive(Clone, Debug)]
pub(super) struct Beats {
    next: u32,
    sent: [(u32, Time, u64); BEATS],
}

/// Numbers that are remembered: echoes of older ones are worth nothing, since their lease is over.
const BEATS: usize = 256;

impl Default for Beats {
    fn default() -> Self {
        Self {
            next: 1,
            sent: [(0, Time::ZERO, 0); BEATS],
        }
    }
}

impl Beats {
    /// A new number; whoever echoes it will not vote for another for `suspect_us`, less a margin.
    pub(super) fn begin(&mut self, now: Time, suspect_us: u64) -> u32 {
        let seq = self.next;
        self.next = self.next.wrapping_add(1).max(1);
        self.sent[Self::index(seq)] = (seq, now, suspect_us);
        seq
    }

    /// When this number was sent, and for what suspicion time.
    pub(super) fn sent(&self, seq: u32) -> Option<(Time, u64)> {
        let (number, at, suspect_us) = self.sent[Self::index(seq)];
        (number == seq && seq > 0).then_some((at, suspect_us))
    }

    fn index(seq: u32) -> usize {
        usize::try_from(seq).unwrap_or(0) % BEATS
    }
}
