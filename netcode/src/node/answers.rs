//! What a driver answers to the requests of its node.

use std::sync::Arc;

#[cfg(doc)]
use super::Request;
use super::core::ExportFor;
use super::{InputError, Node, Role};
use crate::state::{Snapshot, StateHash};
use crate::tick::Tick;
use crate::time::Time;

impl Node {
    /// Answers [`Request::Sample`] with this node's input.
    ///
    /// # Errors
    /// If none was asked for, or its size is wrong.
    pub fn submit_input(&mut self, now: Time, input: &[u8]) -> Result<(), InputError> {
        let expected = self.core.info.input_bytes;
        if input.len() != usize::from(expected) {
            return Err(InputError::Size {
                expected,
                found: input.len(),
            });
        }
        let slot = self.own_slot().ok_or(InputError::NotAsked)?;
        self.core.submit(slot, input).ok_or(InputError::NotAsked)?;
        self.check_lease(now);
        match &mut self.role {
            Role::Host(host) => host.advance(&mut self.core, now),
            Role::Client(client) => {
                client.hurry_return(now);
                client.advance(&mut self.core, now);
            }
        }
        self.drive_terms(now);
        Ok(())
    }

    /// Answers [`Request::Restore`]. If the state was not there, a client drops what it would have
    /// done with it and asks the host for a new one; a host, whose state is that of the session,
    /// ends it.
    pub fn commit_restore(&mut self, now: Time, is_restored: bool) {
        if is_restored {
            return;
        }
        self.core.todo.clear();
        self.core.awaited = None;
        match &mut self.role {
            Role::Host(host) => host.leave(&mut self.core),
            Role::Client(client) => client.ask_anew(now),
        }
    }

    /// Answers [`Request::Hash`]; `None` if the state of that tick is known no more.
    pub fn commit_hash(&mut self, tick: Tick, hash: Option<&StateHash>) {
        let Some(hash) = hash.map(StateHash::combined) else {
            return;
        };
        self.core.hashes.put(tick, hash);
        match &mut self.role {
            Role::Host(host) if host.audience.is_some() => host.commit_final_hash(tick, hash),
            Role::Host(host) => host.doctor.own_hash(&mut self.core, &mut host.guests, tick),
            Role::Client(client) => client.own_hash(&self.core, tick, hash),
        }
    }

    /// Answers [`Request::Export`] with an encoded snapshot; `None` if the state of that tick is
    /// known no more.
    pub fn commit_snapshot(&mut self, tick: Tick, bytes: Option<Vec<u8>>) {
        let purpose = self.exporting.take();
        match (&mut self.role, purpose) {
            (Role::Host(host), Some(ExportFor::Join)) => {
                // Without a state, whoever waits for it goes on to wait: the host asks again.
                if let Some(bytes) = bytes {
                    host.give_state(tick, &Arc::from(bytes));
                }
            }
            (Role::Host(host), Some(ExportFor::Report)) => host.doctor.own_state(tick, bytes),
            (Role::Client(client), Some(_)) => client.give_report(tick, bytes),
            (Role::Host(_) | Role::Client(_), None) => {}
        }
    }

    /// Answers [`Request::Import`]: the tick of the snapshot, or `None` if it cannot be used.
    pub fn commit_import(&mut self, now: Time, tick: Option<Tick>) {
        match &mut self.role {
            Role::Host(host) => {
                host.commit_import(&mut self.core, tick.unwrap_or_default(), tick.is_some());
            }
            Role::Client(client) => client.commit_import(&mut self.core, now, tick),
        }
    }

    /// Answers [`Request::Publish`] with what clients may see of the state.
    pub fn commit_publish(&mut self, snapshot: &Snapshot) {
        if let Role::Host(host) = &mut self.role {
            host.commit_publish(&mut self.core, snapshot);
        }
    }

    /// Answers [`Request::Authority`]: the combined hash of the state after `tick`, without derived
    /// kinds, and the state where it was asked for. An older state is left in its place, whose memory
    /// may be used again.
    pub fn commit_authority(&mut self, tick: Tick, hash: u64, state: Option<&mut Snapshot>) {
        match &mut self.role {
            Role::Host(host) => host.commit_authority(&mut self.core, tick, hash, state),
            Role::Client(client) => client.commit_authority(&mut self.core, tick, hash, state),
        }
        self.authority_is_there();
    }

    /// Answers [`Request::StandByFrom`]: whether the state was taken over.
    pub fn commit_stand_by(&mut self, is_imported: bool) {
        if let Role::Client(client) = &mut self.role
            && let Some(standby) = &mut client.standby
        {
            standby.commit_from(&mut self.core, is_imported);
        }
    }

    /// Answers [`Request::StandByStep`] with the combined hash of the state after it, without derived
    /// kinds, where it was asked for. Says whether that is the host's state: if not, the second
    /// simulation goes back to the newest one that was.
    pub fn commit_stand_by_step(&mut self, hash: Option<u64>) -> bool {
        match &mut self.role {
            Role::Client(client) => match &mut client.standby {
                Some(standby) => standby.commit_step(&mut self.core, hash),
                None => true,
            },
            Role::Host(_) => true,
        }
    }

    /// Answers [`Request::StandByStep`] with what clients may see of the state after it, where it was
    /// asked for: what clients hold of it is what this node goes on from, should it host. Says whether
    /// it is the first one.
    pub fn commit_stand_by_publish(&mut self, snapshot: &Snapshot) -> bool {
        match &mut self.role {
            Role::Client(client) => match &mut client.standby {
                Some(standby) => standby.commit_publish(snapshot),
                None => false,
            },
            Role::Host(_) => false,
        }
    }

    /// Answers [`Request::PublishOwned`] with the predicted entities of this node's slot.
    pub fn commit_owned(&mut self, snapshot: &Snapshot) {
        if let Role::Client(client) = &mut self.role {
            client.commit_owned(snapshot);
        }
    }

    /// Answers [`Request::PublishDecided`] with the entities that this node's slot decides.
    pub fn commit_decided(&mut self, snapshot: &Snapshot) {
        if let Role::Client(client) = &mut self.role {
            client.commit_decided(snapshot);
        }
    }

    /// Answers [`Request::Claim`]: whether the simulation has taken it over.
    pub fn commit_claim(&mut self, is_taken: bool) {
        if let Role::Host(host) = &mut self.role {
            host.commit_claim(&mut self.core, is_taken);
        }
    }

    /// Answers [`Request::Patch`]. If the patch could not be taken over, the state is lost: the
    /// client asks the host for all of it.
    pub fn commit_patch(&mut self, now: Time, is_patched: bool) {
        if let Role::Client(client) = &mut self.role {
            client.commit_patch(&mut self.core, now, is_patched);
        }
    }
}
