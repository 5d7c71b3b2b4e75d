//! State-sync: the host's state as clients need it, in few bytes, over a path that loses some.
//!
//! The host's [`Publisher`] keeps a ring of quantized snapshots, shared by all clients. Per client a
//! [`Subscription`] writes the state body of each datagram from what the client is known to hold.
//! The client's [`Receiver`] turns bodies into snapshots again.
//!
//! Standbys, who may have to become the host, get all of the state instead: a [`StandbyStream`].
//!
//! ```text
//! Snapshot -> Publisher (ring, interest, shared bodies) -> Subscription -> body
//! body -> Receiver -> QuantizedSnapshot per snapshot tick
//! ```

mod budget;
mod claims;
mod head;
mod interest;
mod ledger;
mod publisher;
mod receiver;
mod records;
mod ring;
mod rows;
mod standby;
mod subscription;
mod view;

pub(crate) use claims::authority_kind;
pub use claims::{Claim, Claims, authority_of, claimable_kinds, read_claims};
pub use interest::{Interest, ROOM_KIND, Viewer, VisibilityRule};
pub use ledger::Ledger;
pub use publisher::{Publisher, PublisherConfig, PublisherStatistics};
pub use receiver::{ReadError, ReadReport, Receiver};
pub use standby::{
    Held, HeldRun, PendingInput, StandbyAck, StandbyConfig, StandbyError, StandbyFeed,
    StandbyFeedStatistics, StandbyMode, StandbyState, StandbyStream, TickContext, TickToRun,
    WholeState,
};
pub use subscription::{Keyframe, Subscription, SubscriptionStatistics};
pub use view::{Blend, Floats, Shown, Tables, View};
