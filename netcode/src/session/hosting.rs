//! What a game wants of hosting.

/// How hosting is watched over and moved. The host's values count for the session where they
/// must be the same for all: the suspicion time travels with its heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPolicy {
    /// Whether this node may host.
    pub can_host: bool,
    /// Whether members with a slot may host a session that this node hosts. Not, where players are
    /// not to be trusted with it: then dedicated hosts and their standbys take turns.
    pub players_host: bool,
    /// Whether this node votes. A dedicated host and its standby, players and arbiters do.
    pub is_voter: bool,
    /// A host is suspected after so much silence at least, in microseconds. 150 ms suit the
    /// internet; 100 ms a dedicated pair in one building.
    pub suspect_us_min: u64,
    /// A host is suspected after so much silence at most, in microseconds.
    pub suspect_us_max: u64,
    /// How much earlier than it could be suspected a host stops to act, in microseconds; at least
    /// 30 ms. Voters keep their word until 20 ms before; what is between covers clocks that drift.
    pub lease_margin_us: u64,
    /// Standbys that the host keeps; `None` for one in sessions of up to four members, else two.
    pub standbys: Option<u8>,
    /// After so much time without a host and without a standby that could be elected, in
    /// microseconds, any member that can host may be. Inputs that were promised to be safe may be
    /// lost then. `None`: never.
    pub unclean_after_us: Option<u64>,
    /// After so much time without a host, in microseconds, a member that can host and cannot get
    /// elected goes on in a session of its own, and one without a vote that hears such a member goes
    /// along. `None`: never.
    pub fork_after_us: Option<u64>,
    /// Whether members of a session of more than two voters fork, too. Else they wait.
    pub fork_minority: bool,
    /// A node that hears too few of those who vote for so long, in microseconds of listening, gives the
    /// session up: [`DisconnectReason::NoMajority`](crate::node::DisconnectReason::NoMajority). So does
    /// one that misses its host where nobody else may host
    /// ([`NobodyMayHost`](crate::node::DisconnectReason::NobodyMayHost)). It is told long before, by the
    /// [`Event`](crate::node::Event) of the same name. `None`: it waits as long as its link and its slot
    /// last (`silence_us` and then `resume_us`; a host for `resume_us`).
    pub give_up_after_us: Option<u64>,
    /// A voter that is silent for so long loses its vote, in microseconds.
    pub evict_after_us: u64,
    /// A standby that is silent, or behind by so much, is replaced, in microseconds.
    pub demote_after_us: u64,
    /// Time between two heartbeats at least, in microseconds. One tick by default.
    pub heartbeat_us_min: u64,
    /// Time between two heartbeats at most, in microseconds.
    pub heartbeat_us_max: u64,
    /// Rules to leave out. For tests that show what each rule is for.
    #[doc(hidden)]
    pub ablation: Ablation,
}

impl Default for HostPolicy {
    fn default() -> Self {
        Self {
            can_host: true,
            players_host: true,
            is_voter: true,
            suspect_us_min: 150_000,
            suspect_us_max: 1_000_000,
            lease_margin_us: 40_000,
            standbys: None,
            unclean_after_us: Some(2_500_000),
            fork_after_us: Some(3_000_000),
            fork_minority: false,
            give_up_after_us: Some(30_000_000),
            evict_after_us: 3_000_000,
            demote_after_us: 1_000_000,
            heartbeat_us_min: 16_667,
            heartbeat_us_max: 50_000,
            ablation: Ablation::default(),
        }
    }
}

impl HostPolicy {
    /// The policy of a process that only votes: with it, two players behave like three.
    #[must_use]
    pub fn arbiter() -> Self {
        Self {
            can_host: false,
            ..Self::default()
        }
    }

    /// The policy of a member that neither hosts nor votes.
    #[must_use]
    pub fn bystander() -> Self {
        Self {
            can_host: false,
            is_voter: false,
            ..Self::default()
        }
    }

    /// The policy of a dedicated host or its standby in one building.
    #[must_use]
    pub fn dedicated() -> Self {
        Self {
            suspect_us_min: 100_000,
            ..Self::default()
        }
    }

    /// Standbys to keep among `members`.
    #[must_use]
    pub fn standbys_among(&self, members: usize) -> usize {
        let usual = if members <= 4 { 1 } else { 2 };
        self.standbys.map_or(usual, usize::from)
    }

    /// Whether the settings can be used.
    ///
    /// # Errors
    /// Which cannot.
    pub fn check(&self) -> Result<(), PolicyError> {
        use crate::limits::{SUSPECT_US_MAX, TERM_STANDBYS_MAX};
        if self.lease_margin_us < 30_000 || self.suspect_us_min <= 2 * self.lease_margin_us {
            return Err(PolicyError::LeaseMargin);
        }
        if self.suspect_us_max < self.suspect_us_min || self.suspect_us_max > SUSPECT_US_MAX {
            return Err(PolicyError::Suspect);
        }
        if self.heartbeat_us_min < 1000
            || self.heartbeat_us_max < self.heartbeat_us_min
            || self.heartbeat_us_max > self.suspect_us_min / 2
        {
            return Err(PolicyError::Heartbeat);
        }
        if self.standbys_among(usize::MAX) > TERM_STANDBYS_MAX {
            return Err(PolicyError::Standbys);
        }
        let gives_up_us = self.give_up_after_us.unwrap_or(u64::MAX);
        let is_patient = gives_up_us >= self.evict_after_us;
        if !is_patient
            || self.evict_after_us < self.suspect_us_max
            || self.demote_after_us < self.suspect_us_min
        {
            return Err(PolicyError::Patience);
        }
        Ok(())
    }
}

/// Why a [`HostPolicy`] cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The lease is too short or its margin is.
    #[error("the lease's margin is below 30 ms, or above half of the shortest suspicion time")]
    LeaseMargin,
    /// The suspicion times contradict each other.
    #[error("the longest suspicion time is below the shortest, or above two seconds")]
    Suspect,
    /// Heartbeats are too rare or too frequent.
    #[error("heartbeats are below 1 ms apart, or above half of the shortest suspicion time")]
    Heartbeat,
    /// More standbys than a roster holds.
    #[error("more standbys than a roster holds")]
    Standbys,
    /// Members are given up before they can be suspected, or the session before a voter.
    #[error("members are given up before a host would be suspected, or the session before them")]
    Patience,
}

/// Rules that are left out, so that a test can show what goes wrong without them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ablation {
    /// R1: vote as often as asked.
    pub many_votes: bool,
    /// R2: act without a lease.
    pub no_lease: bool,
    /// R3: vote at once, whatever was echoed.
    pub no_stickiness: bool,
    /// R3: vote as if tick datagrams had not been acked.
    pub no_tick_word: bool,
    /// R4: a new host's lease counts from its election.
    pub late_lease: bool,
    /// R5: anybody may be elected.
    pub any_candidate: bool,
    /// R6: a roster counts as soon as it is proposed.
    pub no_commit: bool,
    /// R7: ticks are safe before the term's first roster is.
    pub early_safe: bool,
    /// R8: a frozen host is silent.
    pub silent_when_frozen: bool,
    /// R9: an incumbent does not stand for election again.
    pub no_incumbent: bool,
    /// R10: rosters are not passed on.
    pub no_gossip: bool,
    /// What the host has received counts as safe.
    pub safe_at_once: bool,
    /// A voter goes on to take what the host before sends.
    pub no_fence: bool,
    /// A host that has committed a handover goes on.
    pub act_after_commit: bool,
    /// Members that have not met are introduced by the host that lets them in only.
    pub no_introductions: bool,
}
