//! What the term machine decides, carried out on the role: to host, to follow, to stand still, to go
//! on alone.

use crate::hash::keyed;
use crate::id::{MemberId, SessionId, Term};
use crate::migration::{Decision, ElectionKind, Takeover};
use crate::node::api::Event;
use crate::node::former::{Fork, Former};
use crate::node::takeover::{StepDown, TakeOver};
use crate::node::{Node, Role};
use crate::session::handshake::TermStart;
use crate::tick::Tick;
use crate::time::Time;

use super::held::{held, shared};
use super::{OWED_US, Owed};

/// A term that this node is about to host.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) take_over: TakeOver,
    since: Time,
    data_loss_possible: bool,
}

/// How long a new host runs ticks that another standby held, in microseconds: then it goes on
/// without the rest.
const PENDING_US: u64 = 200_000;

/// Datagrams that a host which has handed over sends at most, beside two per guest.
const LAST_DATAGRAMS: usize = 16;

/// The same for one of state: a standby that copies may need as many for a tick.
const LAST_STATE_DATAGRAMS: usize = 1024;

impl Node {
    pub(super) fn obey_term(&mut self, now: Time, decision: Decision) {
        match decision {
            Decision::BecomeHost(takeover) => {
                let hosts = self.become_host(now, &takeover);
                if let Some(hosting) = &mut self.hosting {
                    let mut held = held(
                        &self.core,
                        &self.role,
                        &hosting.terms,
                        hosting.pending.as_ref(),
                    );
                    // So that the machine gives the term up.
                    held.fails = !hosts;
                    hosting.terms.handle_timeout(now, &held);
                }
            }
            Decision::StepDown { last, .. } => {
                let retires = self.hosting.as_ref().is_some_and(|hosting| {
                    hosting.terms.roster().host == hosting.own && !hosting.terms.is_host()
                });
                if let Role::Host(host) = &mut self.role {
                    // After a handover the frames up to the last one still go out.
                    match last.filter(|_| retires) {
                        Some(last) => {
                            host.hand_over_at(&self.core, last);
                            self.retire_at_once(now);
                        }
                        None => host.freeze(true),
                    }
                }
            }
            Decision::Fork { term, base, .. } => self.fork(now, term, base),
            // The lease is asked for whenever it matters, and the role follows in
            // `fall_in_line`.
            Decision::Freeze | Decision::Thaw | Decision::Follow { .. } => {}
        }
    }

    /// A host that has handed over asks the next one to go on with it before that one hosts, so that
    /// its inputs are there when they are needed. What the next host may lack of its last frames
    /// went with the word that it hosts; others get it from there.
    fn retire_at_once(&mut self, now: Time) {
        let Some(hosting) = &self.hosting else {
            return;
        };
        let target = hosting.terms.handover_target();
        let term = Term(hosting.terms.term().0 + 1);
        let warm = target.and_then(|(target, _)| Some((target, self.warm(target)?)));
        let (Role::Host(host), Some((target, warm))) = (&mut self.role, warm) else {
            return;
        };
        for guest in host.guests.values_mut() {
            guest.due = true;
        }
        let tells_state = host.audience.is_some();
        let more = if tells_state {
            LAST_STATE_DATAGRAMS
        } else {
            LAST_DATAGRAMS
        };
        for _ in 0..2 * host.guests.len() + more {
            let mut out = Vec::new();
            let Some(path) = host.poll_transmit(&mut self.core, now, &mut out) else {
                break;
            };
            self.parting.push_back((path, out));
        }
        if let (Some(stream), Some(hosting)) = (host.stream.take(), &mut self.hosting) {
            hosting.owed = Some(Owed {
                stream,
                path: warm.path,
                next_at: now.plus_micros(OWED_US),
            });
        }
        self.step_down(
            now,
            StepDown {
                host: target,
                warm,
                term,
            },
        );
        // A host of state goes on when all of that is there.
        if let Role::Client(client) = &mut self.role
            && !tells_state
        {
            client.advance(&mut self.core, now);
        }
    }

    /// Hosts, if this node can.
    fn become_host(&mut self, now: Time, takeover: &Takeover) -> bool {
        self.catch_up_terms(takeover);
        if !takeover.records.is_empty() {
            // If they cannot be used, the machine sees it by what is held then.
            let _result = self.ingest_records(now, &takeover.records);
        }
        let waits = match &self.role {
            Role::Client(client) => client.has_to_run() && self.position().1 < takeover.base,
            Role::Host(_) => false,
        };
        let is_planned = takeover.kind == ElectionKind::Handover;
        let own = self.core.info.member;
        let stays = is_planned || takeover.before == own;
        let lost = if stays {
            Vec::new()
        } else {
            vec![takeover.before]
        };
        let take_over = TakeOver {
            term: takeover.term,
            base: takeover.base,
            is_planned,
            paths: self.warm_paths(),
            lost,
        };
        let pending = Pending {
            take_over,
            since: now,
            data_loss_possible: takeover.data_loss_possible,
        };
        match &mut self.hosting {
            Some(hosting) if waits => {
                hosting.pending = Some(pending);
                if let Role::Client(client) = &mut self.role
                    && let Some(standby) = &mut client.standby
                {
                    // Nothing else matters now.
                    standby.allow(&mut self.core, u32::MAX);
                }
                true
            }
            Some(_) | None => self.begin_to_host(now, &pending),
        }
    }

    fn begin_to_host(&mut self, now: Time, pending: &Pending) -> bool {
        let term = pending.take_over.term;
        let hosts = self.take_over(now, &pending.take_over).is_ok();
        if hosts && pending.data_loss_possible {
            self.core.report(Event::DataLossPossible { term });
        }
        hosts
    }

    /// Hosts as soon as what another standby held has run here.
    pub(super) fn host_when_ready(&mut self, now: Time) {
        let position = self.position().1;
        let has_to_run = match &self.role {
            Role::Client(client) => client.has_to_run(),
            Role::Host(_) => false,
        };
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        let is_ready = |pending: &mut Pending| {
            let is_late = now.micros_since(pending.since) > PENDING_US || !has_to_run;
            position >= pending.take_over.base || is_late
        };
        if let Some(mut pending) = hosting.pending.take_if(is_ready) {
            // What did not run is void: no standby had told the host of it.
            pending.take_over.base = pending.take_over.base.min(position);
            self.begin_to_host(now, &pending);
        }
    }

    /// Before this node hosts: of terms whose hosts it never got to follow it knows by the roster
    /// where they began. What it holds beyond is void.
    fn catch_up_terms(&mut self, takeover: &Takeover) {
        let (Some(hosting), Role::Client(client)) = (&self.hosting, &mut self.role) else {
            return;
        };
        let roster = hosting.terms.roster();
        let Some(shared) = shared(&self.core, roster) else {
            return;
        };
        let lineage = roster.lineage.ancestors().iter();
        let missed = lineage.filter(|one| one.term > shared.term && one.term < takeover.term);
        let missed: Vec<_> = missed.copied().collect();
        let Some(last) = missed.last() else {
            return;
        };
        if self.core.follows || !client.go_back_to(&mut self.core, shared.upto) {
            return;
        }
        let starts = missed.iter().map(|one| TermStart {
            term: one.term.0,
            base: one.base.number(),
            // Who hosted the earlier ones is not told by the roster.
            host: if one == last {
                takeover.before.0
            } else {
                MemberId::UNKNOWN.0
            },
            is_planned: false,
        });
        self.core.change_terms(shared, &starts.collect::<Vec<_>>());
    }

    /// Goes on alone, as the host of a session of its own.
    fn fork(&mut self, now: Time, term: Term, base: Tick) {
        let secret = match &self.role {
            Role::Host(host) => host.config.secret,
            Role::Client(client) => client.config.secret,
        };
        let mut seed = b"fork".to_vec();
        seed.extend_from_slice(&self.core.info.session.0.to_le_bytes());
        seed.extend_from_slice(&term.0.to_le_bytes());
        let half = |which: u8| {
            let mut seed = seed.clone();
            seed.push(which);
            u128::from(keyed(secret, &seed))
        };
        let before = self.core.info.session;
        let own = self.core.info.member;
        let others = self.core.roster.members().iter().map(|member| member.id);
        let hosting = self.hosting.take();
        let roster = hosting.map(|hosting| hosting.terms.roster().clone());
        let may_play_on = |id: MemberId| {
            let roster = roster.as_ref();
            roster.is_some_and(|roster| roster.is_voter(id) || id == roster.host)
        };
        // Whoever has no vote may go along.
        let mut paths = self.warm_paths();
        paths.retain(|&id, _| !may_play_on(id));
        let take_over = TakeOver {
            term,
            base,
            is_planned: false,
            paths,
            // Nobody is waited for.
            lost: others.filter(|&id| id != own).collect(),
        };
        let after = SessionId(half(1) << 64 | half(0));
        self.core.info.session = after;
        if self.take_over(now, &take_over).is_ok() {
            let tell_us = match &self.role {
                Role::Host(host) => host.config.resume_us,
                Role::Client(_) => 0,
            };
            // What members of the session before say of hosting is no matter of this one.
            if let Some(mesh) = self.mesh.take() {
                let fork = Fork {
                    before,
                    after,
                    last: base,
                    at: now,
                    tell_us,
                };
                self.former = Some(Box::new(Former::new(mesh, &fork, may_play_on)));
            }
            self.core.report(Event::Forked { session: after });
            self.found_terms(now);
        } else {
            self.core.info.session = before;
        }
    }
}
