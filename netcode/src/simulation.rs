//! The seam between the protocol and a game: one trait.
//!
//! `netcode` owns it, `phalanx::EcsSimulation` implements it, and a toy in a test can too. A node
//! never touches a simulation; it emits requests, and a driver obeys them here.

use std::sync::Arc;

use crate::id::{NetId, Slot, Term};
use crate::input::InputFrame;
use crate::state::{ImportError, Patch, Schema, Snapshot, StateHash, Visibility};
use crate::tick::Tick;

/// How a step came about. Sounds and effects belong to steps that are [`StepKind::First`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The tick runs for the first time on this node.
    First,
    /// The tick ran before, on inputs that were guessed wrong; it runs again.
    Again,
}

/// A game whose next state is a function of its state and an input frame.
///
/// # Contract
/// Two simulations that agree on [`Simulation::hash`] at tick T and take the same frames agree at
/// every later tick, on every platform and whatever their history was. [`Simulation::restore`] of
/// a captured image and [`Simulation::import`] of an exported snapshot are such histories.
pub trait Simulation {
    /// A saved state for this process only: as cheap as a copy of memory. The driver keeps a ring
    /// of them for rollback, desync reports and joins.
    type Image: Default;

    /// What the state consists of. It never changes during a session.
    fn schema(&self) -> &Arc<Schema>;

    /// The tick of the current state; 0 before the first step.
    fn tick(&self) -> Tick;

    /// Advances by one tick. `frame.tick()` is `self.tick() + 1`.
    fn step(&mut self, frame: &InputFrame, kind: StepKind);

    /// Hashes the current state into `out`, per kind and combined.
    fn hash(&mut self, out: &mut StateHash);

    /// Saves the current state into `image`, reusing its memory.
    fn capture(&mut self, image: &mut Self::Image);

    /// Returns to a state that this simulation captured.
    fn restore(&mut self, image: &Self::Image);

    /// Hashes a captured state, equal to what [`Simulation::hash`] gave then.
    fn hash_image(&self, image: &Self::Image, out: &mut StateHash);

    /// A captured state in its canonical form, for other nodes and for files.
    fn export(&self, image: &Self::Image) -> Snapshot;

    /// Takes over a canonical state, for example of another node.
    ///
    /// # Errors
    /// If the snapshot does not fit the schema; the current state is then unchanged.
    fn import(&mut self, snapshot: &Snapshot) -> Result<(), ImportError>;

    // ---- state-sync mode ----

    /// Writes what clients may see of the current state, in its canonical form: kinds that are not
    /// visible to clients have no rows. On the host, every few ticks.
    fn publish(&mut self, out: &mut Snapshot) {
        let mut image = Self::Image::default();
        self.capture(&mut image);
        *out = self.export(&image);
        let schema = Arc::clone(self.schema());
        for (rows, kind) in out.kinds.iter_mut().zip(schema.kinds()) {
            if kind.visibility != Visibility::Client {
                rows.clear();
            }
        }
    }

    /// As [`Simulation::publish`], but only the entities that belong to `slot`: those whose
    /// [`OWNER_KIND`] says so. On a client that predicts them.
    fn publish_owned(&mut self, slot: Slot, out: &mut Snapshot) {
        self.publish(out);
        let schema = Arc::clone(self.schema());
        keep_entities_of(slot, OWNER_KIND, &schema, out);
    }

    /// Takes over what the authority says has changed; the state is that of `patch.tick` then.
    /// Kinds that clients do not get keep the values that they have here.
    ///
    /// # Errors
    /// If the patch does not fit the schema; the current state is then unchanged.
    fn patch(&mut self, patch: &Patch) -> Result<(), ImportError> {
        let mut image = Self::Image::default();
        self.capture(&mut image);
        let mut snapshot = self.export(&image);
        patch.apply_to(&Arc::clone(self.schema()), &mut snapshot);
        self.import(&snapshot)
    }

    /// As [`Simulation::publish_owned`], but the entities that `slot` decides: those whose
    /// [`AUTHORITY_KIND`] says so. On the client in that slot, after each tick.
    fn publish_decided(&mut self, slot: Slot, out: &mut Snapshot) {
        self.publish(out);
        let schema = Arc::clone(self.schema());
        keep_entities_of(slot, AUTHORITY_KIND, &schema, out);
    }

    /// Overwrites rows of entities that are there, in the present tick: on a client, what it
    /// decides itself and the host's word must not turn back.
    ///
    /// # Errors
    /// If the patch does not fit the schema; the current state is then unchanged.
    fn overwrite(&mut self, patch: &Patch) -> Result<(), ImportError> {
        self.patch(patch)
    }

    /// The client in `slot`, which decides the entity `id`, says what `patch` has of it: rows of
    /// kinds that the entity has, of that entity alone. On the host, between two ticks. The state
    /// takes it over, or stays as it was.
    ///
    /// # Errors
    /// If the game's rules forbid it.
    fn claim(&mut self, slot: Slot, id: NetId, patch: &Patch) -> Result<(), ClaimRefused> {
        let _ = (slot, id);
        self.overwrite(patch).map_err(|_unfit| ClaimRefused)
    }

    /// Writes all of the current state, exactly: what [`Simulation::import`] takes on a node that
    /// shall go on as the host. On a host with standbys, where they need it.
    fn capture_exact(&mut self, out: &mut Snapshot) {
        let mut image = Self::Image::default();
        self.capture(&mut image);
        *out = self.export(&image);
    }

    /// Computes all of the state from now on, as a host does, not just what one player may predict:
    /// on a standby, before it takes over the host's state, and on a node that becomes the host.
    fn become_authority(&mut self) {}

    /// Takes the place of `before` on this node. Nothing of the state changes; but what presentation
    /// was told of past ticks it is not told again, and what it was not told yet is not lost.
    fn succeed(&mut self, before: &mut Self) {
        let _ = before;
    }

    /// A term begins in which this simulation computes the state: ids that it gives from now on are
    /// of that term. In state-sync only: in lockstep all compute the state, so ids follow from it,
    /// and ticks that an election leaves out are undone with all that they spawned.
    fn begin_term(&mut self, term: Term) {
        let _ = term;
    }

    /// Takes notice that the player of `slot` sees others as they were `behind_ticks` ago when its
    /// inputs act: for queries that the host answers for what that player saw.
    fn seen(&mut self, slot: Slot, behind_ticks: u32) {
        let _ = (slot, behind_ticks);
    }
}

/// The game's rules forbid what a client says of an entity that it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the game's rules forbid what the client says of its entity")]
pub struct ClaimRefused;

/// Drops all rows but those of entities whose kind `name` has `slot` in the first byte.
fn keep_entities_of(slot: Slot, name: &str, schema: &Schema, out: &mut Snapshot) {
    let kind = schema.kinds().iter().position(|kind| kind.name == name);
    let slots = kind.and_then(|index| out.kinds.get(index)).cloned();
    for rows in &mut out.kinds {
        let all = core::mem::take(rows);
        for (id, row) in all.rows() {
            let of = slots.as_ref().and_then(|slots| slots.find(id)?.first());
            if of == Some(&slot.0) {
                rows.push(id, |out| out.extend_from_slice(row));
            }
        }
    }
}

/// Name of the kind that says which slot decides an entity, in the first byte of its rows.
pub const AUTHORITY_KIND: &str = "phalanx.authority";

/// Name of the kind that says which slot an entity belongs to, in the first byte of its rows.
pub const OWNER_KIND: &str = "phalanx.owner";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        ExactType, FieldSchema, KindSchema, KindShape, QuantizedSnapshot, Quantizer, Shapes,
        WireForm, WireLayout,
    };

    /// A simulation whose state is a snapshot, with the defaults of the trait.
    struct Plain {
        schema: Arc<Schema>,
        state: Snapshot,
    }

    impl Simulation for Plain {
        type Image = Snapshot;

        fn schema(&self) -> &Arc<Schema> {
            &self.schema
        }

        fn tick(&self) -> Tick {
            self.state.tick
        }

        fn step(&mut self, frame: &InputFrame, _kind: StepKind) {
            self.state.tick = frame.tick();
        }

        fn hash(&mut self, out: &mut StateHash) {
            *out = self.state.hash(&self.schema);
        }

        fn capture(&mut self, image: &mut Snapshot) {
            image.clone_from(&self.state);
        }

        fn restore(&mut self, image: &Snapshot) {
            self.state.clone_from(image);
        }

        fn hash_image(&self, image: &Snapshot, out: &mut StateHash) {
            *out = image.hash(&self.schema);
        }

        fn export(&self, image: &Snapshot) -> Snapshot {
            image.clone()
        }

        fn import(&mut self, snapshot: &Snapshot) -> Result<(), ImportError> {
            snapshot.validate(&self.schema)?;
            self.state.clone_from(snapshot);
            Ok(())
        }
    }

    const HEALTH: usize = 0;
    const SECRET: usize = 1;
    const CLOCK: usize = 2;
    const OWNER: usize = 3;

    /// Entities 1, 2 and 3 have a health, a secret and, but for the last, an owner: its id.
    fn plain() -> Plain {
        let kind = |name: &str, shape, visibility, exact| KindSchema {
            name: name.to_owned(),
            version: 1,
            shape,
            visibility,
            fields: vec![FieldSchema::new("0", exact)],
        };
        let component = KindShape::Component;
        let mut health = kind("Health", component, Visibility::Client, ExactType::U16);
        health.fields[0].wire = WireForm::Range { min: 0, max: 100 };
        let schema = Schema::new(vec![
            health,
            kind("Secret", component, Visibility::HostOnly, ExactType::U8),
            kind(
                "clock",
                KindShape::Resource,
                Visibility::Client,
                ExactType::U32,
            ),
            kind(OWNER_KIND, component, Visibility::Client, ExactType::U8),
        ])
        .unwrap();
        let mut state = Snapshot {
            tick: Tick::new(7),
            kinds: vec![Default::default(); 4],
        };
        for id in 1..=3_u8 {
            let net_id = NetId::from_bits(id.into());
            state.kinds[HEALTH].push(net_id, |out| out.extend([id * 10, 0]));
            state.kinds[SECRET].push(net_id, |out| out.push(id));
            if id < 3 {
                state.kinds[OWNER].push(net_id, |out| out.push(id));
            }
        }
        state.kinds[CLOCK].push(NetId::NONE, |out| out.extend([7, 0, 0, 0]));
        Plain {
            schema: Arc::new(schema),
            state,
        }
    }

    fn ids(rows: &crate::state::KindRows) -> Vec<u64> {
        rows.ids.iter().map(|id| id.bits()).collect()
    }

    #[test]
    fn clients_get_what_they_may_see() {
        let mut plain = plain();
        let mut out = Snapshot::default();
        plain.publish(&mut out);
        assert_eq!(out.tick, Tick::new(7));
        assert_eq!(out.kinds[HEALTH], plain.state.kinds[HEALTH]);
        assert_eq!(ids(&out.kinds[SECRET]), [0_u64; 0]);
        assert_eq!(ids(&out.kinds[CLOCK]), [0]);
        plain.publish_owned(Slot(2), &mut out);
        let found: Vec<_> = out.kinds.iter().map(ids).collect();
        assert_eq!(found, [vec![2], vec![], vec![], vec![2]]);
        plain.publish_owned(Slot(3), &mut out);
        assert!(out.kinds.iter().all(crate::state::KindRows::is_empty));
    }

    #[test]
    fn a_client_takes_over_what_the_authority_says() {
        let mut authority = plain();
        let layout = WireLayout::new(&authority.schema);
        let (mut shapes, mut quantizer) = (Shapes::default(), Quantizer::default());
        let mut exact = Snapshot::default();
        let (mut old, mut new): (QuantizedSnapshot, QuantizedSnapshot) = Default::default();
        authority.publish(&mut exact);
        quantizer.quantize(&layout, &mut shapes, &exact, None, &mut old);

        // Entity 1 goes, 2 is hurt and nobody's, 3 has more health than the wire form allows.
        let state = &mut authority.state;
        state.tick = Tick::new(10);
        state.kinds[HEALTH].clear();
        state.kinds[HEALTH].push(NetId::from_bits(2), |out| out.extend([19, 0]));
        state.kinds[HEALTH].push(NetId::from_bits(3), |out| out.extend([200, 0]));
        state.kinds[OWNER].clear();
        authority.publish(&mut exact);
        let report = quantizer.quantize(&layout, &mut shapes, &exact, None, &mut new);
        assert_eq!(report.clamped, 1);

        let mut patch = Patch::default();
        Patch::between(&layout, &shapes, Some(&old), &new, &mut patch).unwrap();
        let mut client = plain();
        client.patch(&patch).unwrap();
        assert_eq!(client.tick(), Tick::new(10));
        let health = &client.state.kinds[HEALTH];
        assert_eq!(ids(health), [2, 3]);
        assert_eq!(health.bytes, [19, 0, 100, 0]);
        assert_eq!(ids(&client.state.kinds[OWNER]), [0_u64; 0]);
        assert_eq!(ids(&client.state.kinds[CLOCK]), [0], "it did not change");
        // What clients do not get is their own, but an entity goes with all it has.
        assert_eq!(ids(&client.state.kinds[SECRET]), [2, 3]);

        // A row that is no value changes nothing.
        let before = client.state.clone();
        patch.kinds[HEALTH].rows.bytes.pop();
        *patch.kinds[HEALTH].rows.ends.last_mut().unwrap() -= 1;
        assert!(client.patch(&patch).is_err());
        assert_eq!(client.state, before);
    }
}
