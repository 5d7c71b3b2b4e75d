//! What the simulation asks of a registered kind.

use core::any::Any;

use bevy_ecs::component::ComponentId;
use bevy_ecs::entity::Entity;
use bevy_ecs::world::World;
use phalanx_netcode::hash::ValueHasher;
use phalanx_netcode::id;
use phalanx_netcode::state::{Exact, ImportError, KindRows};
use phalanx_netcode::wire::bytes::{DecodeError, Reader};

use super::published::Moment;
use super::structure::{Places, Structure};
use crate::net_id::NetId;

/// Saved values of one kind.
pub(super) type Saved = Box<dyn Any + Send + Sync>;

/// One registered kind, with its type erased.
///
/// `saved` is always what this kind's `empty` or `decode` made.
pub(super) trait Kind: Send + Sync {
    /// Room for values.
    fn empty(&self) -> Saved;

    /// Saves the values of `world`, whose structure is `structure`.
    fn capture(&mut self, world: &World, structure: &Structure, saved: &mut dyn Any);

    /// Whether the same entities have the kind as in `saved`, given that the world's structure is
    /// `structure`, that of `saved`.
    fn is_arranged(&mut self, world: &World, structure: &Structure, saved: &dyn Any) -> bool;

    /// Copies values back, where all kinds are arranged.
    fn restore_in_place(&mut self, world: &mut World, saved: &dyn Any);

    /// Inserts what entities lack.
    fn insert_missing(&mut self, world: &mut World, places: &Places, saved: &dyn Any);

    /// Sets the values of all entities; those with a value too many are noted.
    fn restore_rows(&mut self, world: &mut World, places: &Places, saved: &dyn Any);

    /// Removes values that `restore_rows` found too many.
    fn remove_surplus(&mut self, world: &mut World);

    /// Whether entities without a NetId have the kind.
    fn has_strays(&mut self, world: &mut World) -> bool;

    /// Hashes the values of `world`.
    fn hash(&mut self, world: &World) -> u64;

    /// Hashes saved values.
    fn hash_saved(&self, structure: &Structure, saved: &dyn Any) -> u64;

    /// The canonical form of saved values.
    fn export(&self, structure: &Structure, saved: &dyn Any) -> KindRows;

    /// Reads canonical rows whose bounds and order are checked already.
    fn decode(&self, structure: &Structure, rows: &KindRows) -> Result<Saved, ImportError>;

    /// Writes the canonical rows of a moment into `out`.
    fn publish(&mut self, moment: &Moment<'_>, out: &mut KindRows);

    /// Writes the rows of these entities, which go by id ascending.
    fn publish_some(&self, world: &World, entities: &[(NetId, Entity)], out: &mut KindRows);

    /// Reads the values of a patch, for the calls that follow. The world stays as it is.
    fn read_patch(&mut self, rows: &KindRows) -> Result<(), ImportError>;

    /// The component; `None` for resources.
    fn component(&self) -> Option<ComponentId>;

    /// Inserts values of the patch, which are named by their rows.
    fn insert_patched(&mut self, world: &mut World, missing: &[(Entity, u32)]);

    /// Sets the values of the patch in place. `entities[n]` has value number `n`.
    fn set_patched(&mut self, world: &mut World, entities: &[Entity]);

    /// Takes the kind from `entity`, or the resource from the world.
    fn remove_patched(&mut self, world: &mut World, entity: Entity);
}

/// How values of `T` are written, read and hashed.
pub(super) trait Codec<T>: 'static {
    fn write(value: &T, out: &mut Vec<u8>);
    fn read(reader: &mut Reader<'_>) -> Result<T, DecodeError>;
    fn hash(value: &T, hasher: &mut ValueHasher);
}

/// By the value's exact form.
pub(super) struct ExactCodec;

impl<T: Exact> Codec<T> for ExactCodec {
    fn write(value: &T, out: &mut Vec<u8>) {
        value.write_exact(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<T, DecodeError> {
        T::read_exact(reader)
    }

    #[inline(always)]
    fn hash(value: &T, hasher: &mut ValueHasher) {
        value.hash_exact(hasher);
    }
}

/// No bytes: the value says nothing but that it exists.
pub(super) struct MarkerCodec;

impl<T: Default> Codec<T> for MarkerCodec {
    fn write(_value: &T, _out: &mut Vec<u8>) {}

    fn read(_reader: &mut Reader<'_>) -> Result<T, DecodeError> {
        Ok(T::default())
    }

    fn hash(_value: &T, _hasher: &mut ValueHasher) {}
}

/// The value in `bytes`, which must hold nothing else.
pub(super) fn decode_value<T, C: Codec<T>>(
    kind: &str,
    id: id::NetId,
    bytes: &[u8],
) -> Result<T, ImportError> {
    let mut reader = Reader::new(bytes);
    C::read(&mut reader)
        .and_then(|value| reader.finish().map(|()| value))
        .map_err(|_error| ImportError::BadRow {
            kind: kind.to_owned(),
            id,
        })
}

pub(super) fn downcast<T: 'static>(saved: &dyn Any) -> &T {
    saved.downcast_ref().expect(OWN)
}

pub(super) fn downcast_mut<T: 'static>(saved: &mut dyn Any) -> &mut T {
    saved.downcast_mut().expect(OWN)
}

const OWN: &str = "images of one game hold the kinds of that game, in its order";
