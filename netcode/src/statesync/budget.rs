//! How many bytes of state a client gets: a bucket that fills with time, slower where bytes are
//! lost.

use crate::limits::DATAGRAM_BYTES_MAX;

/// Outcomes of datagrams between two looks at the loss.
const OUTCOMES: u32 = 64;
/// The least share of the budget, in 256ths: loss that does not come from load must not starve.
const SHARE_MIN: u32 = 64;
/// The whole budget.
const SHARE_MAX: u32 = 256;

/// The bucket of one client.
///
/// More than a tenth of 64 datagrams lost: the rate falls by a fifth, to a quarter of the budget at
/// least. Less than a twentieth: it grows by a sixteenth of the budget. Loss in between, as of a bad
/// radio, leaves it.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    per_snapshot: i64,
    share: u32,
    tokens: i64,
    arrived: u32,
    lost: u32,
}

impl Budget {
    /// A full bucket that gets so many bytes per snapshot.
    pub(super) fn new(bytes_per_snapshot: u32) -> Self {
        let mut budget = Self {
            per_snapshot: i64::from(bytes_per_snapshot.max(1)),
            share: SHARE_MAX,
            tokens: 0,
            arrived: 0,
            lost: 0,
        };
        budget.tokens = budget.most();
        budget
    }

    /// What one snapshot may take on average, in bytes.
    pub(super) fn per_snapshot(&self) -> i64 {
        (self.per_snapshot * i64::from(self.share) / i64::from(SHARE_MAX)).max(1)
    }

    /// Whether loss has taken nothing away.
    pub(super) const fn is_whole(&self) -> bool {
        self.share == SHARE_MAX
    }

    /// What may be sent now, in bytes; negative after a larger snapshot.
    pub(super) const fn tokens(&self) -> i64 {
        self.tokens
    }

    /// `snapshots` more have passed.
    pub(super) fn accrue(&mut self, snapshots: u32) {
        let more = self.per_snapshot().saturating_mul(i64::from(snapshots));
        self.tokens = self.tokens.saturating_add(more).min(self.most());
    }

    /// So many bytes were sent.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.tokens -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// A datagram arrived, or was lost.
    pub(super) fn outcome(&mut self, arrived: bool) {
        if arrived {
            self.arrived += 1;
        } else {
            self.lost += 1;
        }
        let outcomes = self.arrived + self.lost;
        if outcomes < OUTCOMES {
            return;
        }
        if self.lost * 10 > outcomes {
            self.share = (self.share * 4 / 5).max(SHARE_MIN);
        } else if self.lost * 20 < outcomes {
            self.share = (self.share + SHARE_MAX / 16).min(SHARE_MAX);
        }
        (self.arrived, self.lost) = (0, 0);
    }

    /// What the bucket holds: two snapshots, or a datagram where that is more, so that a small
    /// budget still sends something now and then.
    fn most(&self) -> i64 {
        let datagram = i64::try_from(DATAGRAM_BYTES_MAX).unwrap_or(i64::MAX);
        (2 * self.per_snapshot()).max(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_lowers_the_rate_to_a_quarter_and_quiet_restores_it() {
        let mut budget = Budget::new(1600);
        let run = |budget: &mut Budget, lost_of_64: u32| {
            for n in 0..64 {
                budget.outcome(n >= lost_of_64);
            }
        };
        run(&mut budget, 5);
        assert_eq!(budget.per_snapshot(), 1600, "a bad radio is no overload");
        run(&mut budget, 20);
        assert_eq!(budget.per_snapshot(), 1275);
        (0..20).for_each(|_| run(&mut budget, 40));
        assert_eq!(budget.per_snapshot(), 400);
        (0..12).for_each(|_| run(&mut budget, 0));
        assert_eq!(budget.per_snapshot(), 1600);
    }

    #[test]
    fn unused_bytes_are_kept_for_one_snapshot_more_and_debts_are_paid() {
        let mut budget = Budget::new(1600);
        budget.accrue(100);
        assert_eq!(budget.tokens(), 3200);
        budget.spend(4000);
        assert_eq!(budget.tokens(), -800);
        budget.accrue(1);
        assert_eq!(budget.tokens(), 800);
    }
}
