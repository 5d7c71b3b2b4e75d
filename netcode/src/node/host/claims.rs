//! What clients say of entities that they decide.
//!
//! The host believes them as far as the entity is theirs by the newest published snapshot and the
//! game's rules let it pass. All else is counted and, where it is a lie, reported.

use std::collections::VecDeque;

use super::Host;
use crate::id::{NetId, Slot};
use crate::limits::CLAIMS_MAX;
use crate::node::api::Event;
use crate::node::audience::Audience;
use crate::node::core::{Core, Todo};
use crate::session::control::Control;
use crate::session::statistics::DropReason;
use crate::state::{Patch, Schema};
use crate::statesync::{Claim, authority_kind, authority_of, claimable_kinds, read_claims};
use crate::tick::Tick;

/// Ticks between two reports about the same slot: a liar must not drown what else is reported.
const REPORT_TICKS: u32 = 60;

/// What clients claimed, until the driver hands it to the simulation.
#[derive(Debug)]
pub(in crate::node) struct Claimed {
    kind: Option<u16>,
    claimable: Vec<bool>,
    kinds: usize,
    pending: VecDeque<(Slot, Claim)>,
    /// The claim that the simulation looks at.
    patch: Patch,
    current: Option<(Slot, NetId)>,
    /// When something was reported last, by slot.
    reported: Vec<(Slot, Tick)>,
}

impl Claimed {
    pub(in crate::node) fn new(schema: &Schema) -> Self {
        Self {
            kind: authority_kind(schema),
            claimable: claimable_kinds(schema),
            kinds: schema.kinds().len(),
            pending: VecDeque::new(),
            patch: Patch::default(),
            current: None,
            reported: Vec::new(),
        }
    }

    /// Reports a lie, now and then; gives what the client has to be told.
    #[must_use]
    fn report(
        &mut self,
        core: &mut Core,
        slot: Slot,
        id: NetId,
        is_foreign: bool,
    ) -> Option<Control> {
        let now = core.timeline.simulated();
        let last = self.reported.iter_mut().find(|(of, _)| *of == slot);
        match last {
            Some((_, at)) if now < at.plus(REPORT_TICKS) => return None,
            Some((_, at)) => *at = now,
            None => self.reported.push((slot, now)),
        }
        core.report(Event::ClaimRefused {
            slot,
            entity: id,
            is_foreign,
        });
        Some(Control::Denied {
            entity: id.bits(),
            is_foreign,
        })
    }
}

/// Whose an entity is, for a claim.
enum Standing {
    /// The claimant's; the claim names only kinds that it has.
    Own,
    /// It was the claimant's lately, or is gone: an honest client may not know yet.
    Late,
    /// Not the claimant's.
    Foreign,
}

impl Audience {
    /// Whether `claim` of `slot` is about an entity that it decides.
    fn standing(&self, slot: Slot, claim: &Claim) -> Standing {
        let Some(kind) = self.claimed.kind else {
            return Standing::Foreign;
        };
        let (layout, shapes) = (self.publisher.layout(), self.publisher.shapes());
        let mut is_newest = true;
        for snapshot in self.publisher.newest_first() {
            let entity = snapshot.find(claim.id);
            let is_own = entity
                .is_some_and(|entity| authority_of(layout, shapes, kind, &entity) == Some(slot));
            if is_own && is_newest {
                let has = entity.map_or(&[][..], |entity| &shapes.get(entity.shape).kinds);
                let fits = claim
                    .rows()
                    .all(|(kind, _)| has.binary_search(&kind).is_ok());
                return if fits { Standing::Own } else { Standing::Late };
            }
            if is_own {
                return Standing::Late;
            }
            is_newest = false;
        }
        Standing::Foreign
    }

    /// Reads what a client in `slot` claims.
    pub(in crate::node) fn read_claims(&self, section: &[u8]) -> Result<Vec<Claim>, DropReason> {
        read_claims(self.publisher.layout(), &self.claimed.claimable, section)
            .map_err(|_error| DropReason::BadSection)
    }

    /// Sorts what a client in `slot` claims; what it may claim waits for the simulation. Gives what
    /// the client has to be told.
    pub(in crate::node) fn take_claims(
        &mut self,
        core: &mut Core,
        slot: Slot,
        claims: Vec<Claim>,
    ) -> Option<Control> {
        let mut word = None;
        for claim in claims {
            match self.standing(slot, &claim) {
                Standing::Own if self.claimed.pending.len() < CLAIMS_MAX * 4 => {
                    self.claimed.pending.push_back((slot, claim));
                    core.todo.push_back(Todo::Claim(core.timeline.simulated()));
                }
                Standing::Own | Standing::Late => self.statistics.claims_late += 1,
                Standing::Foreign => {
                    self.statistics.claims_foreign += 1;
                    word = self.claimed.report(core, slot, claim.id, true).or(word);
                }
            }
        }
        word
    }
}

impl Host {
    /// The next claim for the simulation.
    pub(in crate::node) fn next_claim(&mut self, tick: Tick) -> Option<(Slot, NetId, &Patch)> {
        let audience = self.audience.as_mut()?;
        let claimed = &mut audience.claimed;
        let (slot, claim) = claimed.pending.pop_front()?;
        claimed.patch.tick = tick;
        claimed
            .patch
            .kinds
            .resize_with(claimed.kinds, Default::default);
        for kind in &mut claimed.patch.kinds {
            kind.rows.clear();
        }
        for (kind, row) in claim.rows() {
            let rows = &mut claimed.patch.kinds[usize::from(kind)].rows;
            rows.push(claim.id, |out| out.extend_from_slice(row));
        }
        claimed.current = Some((slot, claim.id));
        Some((slot, claim.id, &claimed.patch))
    }

    /// The simulation has taken a claim over, or its rules forbid it.
    pub(in crate::node) fn commit_claim(&mut self, core: &mut Core, is_taken: bool) {
        let Some(audience) = &mut self.audience else {
            return;
        };
        let Some((slot, id)) = audience.claimed.current.take() else {
            return;
        };
        if is_taken {
            audience.statistics.claims += 1;
        } else {
            audience.statistics.claims_forbidden += 1;
            let word = audience.claimed.report(core, slot, id, false);
            let mut guests = self.guests.values_mut();
            let guest = guests.find(|guest| guest.peer.slot == Some(slot));
            if let (Some(guest), Some(word)) = (guest, word) {
                guest.tell(&word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::config::{GameInfo, HostConfig, Mode};
    use crate::simulation::AUTHORITY_KIND;
    use crate::state::{ExactType, FieldSchema, KindSchema, KindShape, Snapshot, Visibility};
    use crate::tick::TickRate;
    use crate::time::Time;

    fn host() -> (Host, Core) {
        let kind = |name: &str| KindSchema {
            name: name.to_owned(),
            version: 1,
            shape: KindShape::Component,
            visibility: Visibility::Client,
            fields: vec![FieldSchema::new("0", ExactType::U8)],
        };
        let schema = Schema::new(vec![kind("Body"), kind(AUTHORITY_KIND)]).unwrap();
        let game = GameInfo {
            game: "test".to_owned(),
            build: "1".to_owned(),
            schema: Arc::new(schema),
            mode: Mode::StateSync,
            tick_rate: TickRate::DEFAULT,
            input_bytes: 1,
        };
        Host::new(HostConfig::new(game, 4), Time::ZERO)
    }

    /// Entities 1 to 3 with who decides them.
    fn publish(host: &mut Host, core: &mut Core, tick: u32, deciders: [Option<u8>; 3]) {
        let mut state = Snapshot {
            tick: Tick::new(tick),
            kinds: vec![Default::default(); 2],
        };
        for (id, decider) in (1..).zip(deciders) {
            let id = NetId::from_bits(id);
            state.kinds[0].push(id, |out| out.push(7));
            if let Some(slot) = decider {
                state.kinds[1].push(id, |out| out.push(slot));
            }
        }
        host.commit_publish(core, &state);
    }

    fn claim(host: &mut Host, core: &mut Core, slot: u8, id: u8) {
        let audience = host.audience.as_mut().unwrap();
        let claims = audience.read_claims(&[1, id, 1, 0, 9]).unwrap();
        let _word = audience.take_claims(core, Slot(slot), claims);
    }

    fn pending(host: &mut Host) -> Vec<(u8, u64, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((slot, id, patch)) = host.next_claim(Tick::ZERO) {
            let row = patch.kinds[0].rows.find(id).unwrap().to_vec();
            all.push((slot.0, id.bits(), row));
        }
        all
    }

    #[test]
    fn who_claims_what_it_does_not_decide_is_ignored_counted_and_reported_once() {
        let (mut host, mut core) = host();
        publish(&mut host, &mut core, 3, [Some(1), Some(2), None]);
        claim(&mut host, &mut core, 1, 1);
        for _ in 0..100 {
            claim(&mut host, &mut core, 1, 2);
            claim(&mut host, &mut core, 1, 3);
            claim(&mut host, &mut core, 1, 77);
        }
        assert_eq!(pending(&mut host), [(1, 1, vec![9])]);
        let statistics = host.audience.as_ref().unwrap().statistics;
        assert_eq!(statistics.claims_foreign, 300);
        let told: Vec<&Event> = core.events.iter().collect();
        let refused = Event::ClaimRefused {
            slot: Slot(1),
            entity: NetId::from_bits(2),
            is_foreign: true,
        };
        assert_eq!(told, [&refused]);
    }

    #[test]
    fn a_claim_that_crosses_a_transfer_is_no_lie() {
        let (mut host, mut core) = host();
        publish(&mut host, &mut core, 3, [Some(1), None, None]);
        publish(&mut host, &mut core, 6, [Some(2), None, None]);
        claim(&mut host, &mut core, 1, 1);
        claim(&mut host, &mut core, 2, 1);
        assert_eq!(pending(&mut host), [(2, 1, vec![9])]);
        let statistics = host.audience.as_ref().unwrap().statistics;
        assert_eq!((statistics.claims_late, statistics.claims_foreign), (1, 0));
        assert!(core.events.is_empty());
    }

    #[test]
    fn a_flood_of_claims_is_bounded() {
        let (mut host, mut core) = host();
        publish(&mut host, &mut core, 3, [Some(1), None, None]);
        (0..10_000).for_each(|_| claim(&mut host, &mut core, 1, 1));
        assert_eq!(pending(&mut host).len(), CLAIMS_MAX * 4);
    }

    #[test]
    fn what_the_rules_forbid_is_counted() {
        let (mut host, mut core) = host();
        publish(&mut host, &mut core, 3, [Some(1), None, None]);
        for is_taken in [true, false] {
            claim(&mut host, &mut core, 1, 1);
            assert!(host.next_claim(Tick::ZERO).is_some());
            host.commit_claim(&mut core, is_taken);
            host.commit_claim(&mut core, is_taken);
        }
        let statistics = host.audience.as_ref().unwrap().statistics;
        assert_eq!((statistics.claims, statistics.claims_forbidden), (1, 1));
        assert_eq!(core.events.len(), 1);
    }
}
