//! Who hosts: terms, elections, leases and handovers, for both modes of play.
//!
//! One [`Terms`] per node decides which member hosts the session, so that at no moment two do, and
//! so that nothing that a player was promised is lost when hosting moves. It is a pure machine:
//! it knows members by identity and what others tell it in [`TermMessage`]s, and nothing of
//! simulations, inputs or paths; what its node holds it learns through [`Authority`].
//!
//! The rules, in short (`docs/STATES.md`, Terms, has the transitions):
//!
//! - At most one host per term: a member votes once per term, and a quorum elects. A host acts
//!   only as long as it holds a **lease**: enough voters have echoed a recent heartbeat, and each
//!   echo is a promise not to vote for another until the lease has certainly run out.
//! - Only the host changes the [`TermRoster`]. At most one change is under way, and it counts once
//!   enough voters hold it that nobody can be elected by the roster before. Until then both
//!   rosters count for the lease and for what is safe.
//! - A tick is **safe** when every standby of the rosters that count holds it. Only a standby of
//!   the newest roster can be elected, and it brings the roster's floor with it; so what is safe
//!   survives, except where an election had to do without a standby, and says so.
//! - Hosting that moves as planned is a lease that is handed on: voters grant it to the target
//!   beforehand, on the condition that the host commits.

mod api;
mod certificate;
mod codec;
mod detector;
mod lineage;
mod message;
mod roster;
mod terms;

pub use crate::session::hosting::{Ablation, HostPolicy, PolicyError};
pub use api::{
    Authority, Decision, HandoverError, HandoverFailure, Quorum, Takeover, TermEvent,
    TermsStatistics,
};
pub use certificate::{CastVote, Certificate, ElectionKind};
pub use lineage::{Ancestor, Lineage, Position};
pub use message::TermMessage;
pub use roster::{TermMember, TermRoster, elect_quorum, keep_quorum};
pub use terms::{Identity, Terms};
