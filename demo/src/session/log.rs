//! What a node went through, in words for people and in figures.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use phalanx::netcode::id::MemberId;
use phalanx::netcode::link::CloseReason;
use phalanx::netcode::node::{DesyncReport, DisconnectReason, Event, Node};
use phalanx::netcode::session::handshake::ByeReason;
use phalanx::netcode::session::roster::Member;
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

use super::Traffic;
use super::changes::Changes;
use super::outcome::End;

/// Seconds for which members wait where nobody may host, as [`HostPolicy`] has it.
///
/// [`HostPolicy`]: phalanx::netcode::migration::HostPolicy
const PATIENCE_S: u32 = 30;

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) end: Option<End>,
    /// Names of the players, by slot.
    pub(super) names: Vec<String>,
    /// Names of all members, and whether they are connected.
    members: BTreeMap<MemberId, (String, bool)>,
    pub(super) desyncs: Vec<DesyncReport>,
    pub(super) players: usize,
    pub(super) rtt_us: Option<u64>,
    pub(super) traffic: Traffic,
    pub(super) changes: Changes,
    pub(super) news: Vec<String>,
    /// How often the link was lost and taken up again.
    pub(super) returns: u32,
    /// Whether it left more than one other player behind and went on alone.
    pub(super) is_apart: bool,
    /// Who plays on in another session, and the last tick that both have.
    pub(super) other: Option<(MemberId, Tick)>,
    /// Whether this node hosted, and has not followed another host since.
    hosted: bool,
}

/// What is known when an event is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Time,
    /// This node's member.
    pub(super) own: MemberId,
    /// The newest tick for which an own input was given.
    pub(super) given: Tick,
    /// The host that this node was to join.
    pub(super) address: Option<SocketAddr>,
    /// Players of the session, those included that may come back.
    pub(super) players: usize,
    /// Where members elect: how many vote.
    pub(super) electors: Option<usize>,
    /// Who hosts, as far as this node knows.
    pub(super) host: MemberId,
    /// Whether it hosts, and so many as one other could go on without it, in a session of its own.
    pub(super) may_be_left: bool,
}

impl Log {
    /// Takes notice of a member, and says whether anything about it is new.
    fn remember(&mut self, member: &Member) -> bool {
        if let Some(slot) = member.slot {
            if self.names.len() <= slot.index() {
                self.names.resize(slot.index() + 1, String::new());
            }
            self.names[slot.index()].clone_from(&member.name);
        }
        let known = self.members.get(&member.id);
        let is_known = known.is_some_and(|(name, connected)| {
            *name == member.name && *connected == member.connected
        });
        if !is_known {
            let now = (member.name.clone(), member.connected);
            self.members.insert(member.id, now);
        }
        !is_known
    }

    /// Takes notice of everyone that `node` knows.
    pub(super) fn remember_all(&mut self, node: &Node) {
        for member in node.roster().members() {
            self.remember(member);
        }
    }

    /// A member, for people.
    pub(super) fn who(&self, member: MemberId) -> String {
        match self.members.get(&member) {
            Some((name, _)) => quoted(name),
            None => format!("member {member}"),
        }
    }

    /// The name of a member, as it chose it.
    pub(super) fn name_of(&self, member: MemberId) -> Option<String> {
        self.members.get(&member).map(|(name, _)| name.clone())
    }

    /// Says something.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.news.push(text.into());
    }

    /// Takes an event.
    pub(super) fn take(&mut self, moment: Moment, event: Event) {
        match event {
            Event::Welcomed { info, .. } => self.say(match info.slot {
                Some(slot) => format!("joined the session in slot {}", slot.0),
                None => "watching the session".to_owned(),
            }),
            Event::Refused {
                reason,
                differences,
            } => {
                let details = if differences.is_empty() {
                    String::new()
                } else {
                    format!(": {}", differences.join("; "))
                };
                let sentence = format!("the host refused: {reason}{details}");
                self.end.get_or_insert(End::Failed(sentence));
            }
            Event::JoinFailed { reason } => {
                let sentence = match moment.electors {
                    Some(electors) => cut_off(electors),
                    None => why_closed(reason, moment.address),
                };
                self.end.get_or_insert(End::Failed(sentence));
            }
            // A new host introduces everyone again.
            Event::Member(member) if !self.remember(&member) => {}
            Event::Member(member) => {
                let doing = if member.connected {
                    "is here"
                } else if moment.may_be_left && self.other.is_none() {
                    "is not connected; it may play on in a session of its own"
                } else {
                    "is not connected"
                };
                self.say(format!("{} {doing}", quoted(&member.name)));
            }
            // At the end everyone leaves.
            Event::Left { member, reason } if self.end.is_none() => {
                let known = (member.name.clone(), false);
                self.members.insert(member.id, known);
                self.say(format!("{}: {reason}", quoted(&member.name)));
            }
            Event::Started => self.say("the match begins"),
            Event::ClaimRefused { slot, entity, .. } => {
                let (slot, id) = (slot.0, entity.bits());
                self.say(format!("ignored what slot {slot} says of entity {id:#x}"));
            }
            Event::InputReplaced { tick } => self.changes.input_replaced(tick),
            Event::Healed { tick } => {
                self.say(format!("took over the host's state of tick {tick}"));
            }
            Event::Desync(report) => {
                let (tick, member) = (report.tick, report.member);
                self.say(format!("desync at tick {tick}, member {member}"));
                self.desyncs.push(report);
            }
            Event::Ended { .. } => {
                self.end.get_or_insert(End::Finished);
            }
            Event::Disconnected { reason } => {
                if reason == DisconnectReason::Bye(ByeReason::HostStops) {
                    self.say("the host stopped the session");
                }
                let end = self.end_of(reason, moment);
                self.end.get_or_insert(end);
            }
            Event::HostSuspected { .. }
            | Event::HostHeardAgain { .. }
            | Event::HostLost { .. }
            | Event::Electing { .. }
            | Event::Frozen
            | Event::NoMajority(_)
            | Event::NobodyMayHost { .. }
            | Event::Thawed
            | Event::HandoverAborted { .. }
            | Event::DataLossPossible { .. }
            | Event::Forked { .. }
            | Event::Apart { .. }
            | Event::HostChanged { .. }
            | Event::LostTicks { .. } => self.take_of_hosting(moment, event),
            Event::Left { .. }
            | Event::Inspected(_)
            | Event::Activated { .. }
            | Event::Stalled { .. }
            | Event::Resumed { .. }
            | Event::Message { .. } => {}
        }
    }

    /// How a session ended that `reason` cut off.
    fn end_of(&self, reason: DisconnectReason, moment: Moment) -> End {
        let is_lost = matches!(
            reason,
            DisconnectReason::PathClosed(_)
                | DisconnectReason::Silence
                | DisconnectReason::Abandoned
        );
        if is_lost && self.hosted && moment.host != moment.own {
            let who = self.who(moment.host);
            return End::Failed(format!(
                "this node hosted until it slept or was cut off; {who} hosts since, without a place for it"
            ));
        }
        let is_cut_off = is_lost && reason != DisconnectReason::Abandoned;
        if let (true, Some(electors)) = (is_cut_off, moment.electors) {
            return End::Failed(cut_off(electors));
        }
        match reason {
            DisconnectReason::Left => End::Left,
            DisconnectReason::Bye(ByeReason::Ended) => End::Finished,
            DisconnectReason::Bye(ByeReason::HostStops) => End::HostStopped,
            DisconnectReason::PathClosed(reason) => End::Failed(why_closed(reason, moment.address)),
            DisconnectReason::Bye(_)
            | DisconnectReason::Silence
            | DisconnectReason::Abandoned
            | DisconnectReason::NoMajority(_)
            | DisconnectReason::NobodyMayHost
            | DisconnectReason::BadState => End::Failed(reason.to_string()),
        }
    }

    /// Takes an event that concerns who hosts.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are taken in Log::take, where the list is complete"
    )]
    fn take_of_hosting(&mut self, moment: Moment, event: Event) {
        match event {
            Event::HostSuspected { member } => {
                self.say(format!(
                    "nothing is heard of the host, {}",
                    self.who(member)
                ));
            }
            Event::HostLost { member } => {
                self.say(format!(
                    "lost the host, {}; coming back to whoever hosts",
                    self.who(member)
                ));
            }
            Event::HostHeardAgain { member } => {
                self.say(format!("the host, {}, is heard again", self.who(member)));
            }
            Event::Electing { member, term } => {
                let who = self.who(member);
                self.say(format!("{who} may host, in term {}", term.0));
            }
            Event::Frozen => {
                self.hosted = true;
                self.changes.stands_still();
                self.say("too few members are heard: nothing is ordered until they are");
            }
            Event::NobodyMayHost { host } => {
                self.changes.stands_still();
                let who = self.who(host);
                self.say(format!(
                    "{who} hosts, and nobody else here may: waiting for it, {PATIENCE_S} s at most"
                ));
            }
            Event::NoMajority(quorum) => {
                self.changes.stands_still();
                self.say(format!(
                    "of {} members that elect a host {} are heard, and it takes {}: all stands still",
                    quorum.voters, quorum.heard, quorum.needed
                ));
            }
            Event::Thawed => self.say("enough members are heard again"),
            Event::HandoverAborted { member, reason } => {
                let who = self.who(member);
                self.say(format!("hosting stays here, not with {who}: {reason}"));
            }
            Event::DataLossPossible { term } => {
                self.changes.unclean();
                let term = term.0;
                self.say(format!(
                    "term {term} began without those who held everything"
                ));
            }
            Event::Forked { session } => {
                self.changes.forked();
                self.is_apart |= moment.players > 2;
                let id = session.0;
                self.say(if moment.host == moment.own {
                    format!(
                        "alone in a session of its own, {id:x}; the others may play on without this node"
                    )
                } else {
                    format!("along with the one who is heard, in a session apart, {id:x}")
                });
            }
            Event::Apart {
                member,
                session,
                last,
            } => {
                self.changes.forked();
                self.other = Some((member, last));
                let (who, id) = (self.who(member), session.0);
                self.say(format!(
                    "{who} plays on in a session of its own, {id:x}: since tick {last} there are two"
                ));
            }
            Event::HostChanged { member, term } => {
                let is_other = self.changes.host_changed(moment.now, member, moment.given);
                let who = self.who(member);
                let (own, term) = (member == moment.own, term.0);
                self.hosted = own;
                self.say(match (own, is_other) {
                    (true, true) => format!("this node, {who}, hosts from now on, in term {term}"),
                    (false, true) => format!("{who} hosts from now on, in term {term}"),
                    (_, false) => format!("{who} hosts on, in term {term}"),
                });
            }
            Event::LostTicks { first, last } => {
                self.changes.ticks_lost(first, last);
                self.say(format!("ticks {first} to {last} did not happen"));
            }
            _ => {}
        }
    }
}

/// Why a member of a session that elects its hosts had to give up.
fn cut_off(electors: usize) -> String {
    format!(
        "the host is not heard, nor is a majority of the {electors} members that could elect \
         another: they are gone, or this machine is cut off"
    )
}

/// Why there is no path to the host any more, or never was one.
fn why_closed(reason: CloseReason, host: Option<SocketAddr>) -> String {
    if let (CloseReason::NoAnswer, Some(address)) = (reason, host) {
        format!(
            "the host at {address} does not answer; check the address, its firewall and that it runs"
        )
    } else {
        reason.to_string()
    }
}

/// A name that another node chose, safe to print.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.escape_debug())
}
