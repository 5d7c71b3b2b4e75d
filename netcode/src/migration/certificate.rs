//! How a host came to its term.

use crate::id::MemberId;
use crate::migration::lineage::Position;
use crate::tick::Tick;

/// What an election is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ElectionKind {
    /// The session was opened.
    #[default]
    Founding,
    /// A standby succeeds a host that is silent.
    Failover,
    /// The host stands again: it holds its members, but not its term any more.
    Incumbent,
    /// A member that is no standby, because none was left. What was safe may be lost.
    Unclean,
    /// The host handed over as planned.
    Handover,
}

impl ElectionKind {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Founding => 0,
            Self::Failover => 1,
            Self::Incumbent => 2,
            Self::Unclean => 3,
            Self::Handover => 4,
        }
    }

    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Founding),
            1 => Some(Self::Failover),
            2 => Some(Self::Incumbent),
            3 => Some(Self::Unclean),
            4 => Some(Self::Handover),
            _ => None,
        }
    }
}

/// A vote that elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CastVote {
    /// Whose.
    pub voter: MemberId,
    /// What the voter held.
    pub position: Position,
    /// The highest tick that it had shown.
    pub shown: Tick,
}

/// Why a term's host is its host: the votes. Voters are authenticated by their links, so this
/// says what happened; it proves nothing to those who trust nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The votes, by voter.
    pub votes: Vec<CastVote>,
}
