//! What a client says of an entity that it decides, as the game's rules see it.

use phalanx_netcode::id::Slot;
use phalanx_netcode::state::{Networked, Patch, Schema};
use phalanx_netcode::wire::bytes::Reader;

use crate::net_id::NetId;

/// The values that a client claims for one entity; the world still has those before.
#[derive(Debug)]
pub struct ClaimedValues<'a> {
    slot: Slot,
    id: NetId,
    schema: &'a Schema,
    patch: &'a Patch,
}

impl<'a> ClaimedValues<'a> {
    pub(crate) fn new(slot: Slot, id: NetId, schema: &'a Schema, patch: &'a Patch) -> Self {
        Self {
            slot,
            id,
            schema,
            patch,
        }
    }

    /// Who claims.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The entity.
    #[must_use]
    pub fn id(&self) -> NetId {
        self.id
    }

    /// The claimed value of a component, if it is among what is claimed.
    #[must_use]
    pub fn get<T: Networked>(&self) -> Option<T> {
        let mut kinds = self.schema.kinds().iter();
        let kind = kinds.position(|kind| kind.name == T::NAME)?;
        let row = self.patch.kinds.get(kind)?.rows.find(self.id.raw())?;
        T::read_exact(&mut Reader::new(row)).ok()
    }
}
