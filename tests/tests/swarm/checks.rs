//! What must hold in every run: looked at while it goes on, and at its end.

use super::*;

impl Run {
    pub(super) fn look_at_events(&mut self, index: Index) {
        let events = core::mem::take(&mut self.cluster.members[index].events);
        for event in events {
            let watched = &mut self.watched[index];
            match event {
                Event::Welcomed { info, .. } => {
                    watched.active_from = None;
                    watched.links += 1;
                    // A new state brings a newer tick: what ran here up to it were guesses.
                    let settled = self.cluster.node(index).settled_tick().number();
                    watched.checked = watched.checked.max(settled);
                    // Messages are counted per member. One with a second link may miss some.
                    if watched.member.replace(info.member) != Some(info.member) {
                        (watched.sent, watched.heard, watched.links) = (0, 0, 1);
                    }
                    self.cluster.driver(index).player_mut().submitted.clear();
                    if let Some(actor) = self.actor(index) {
                        actor.asks_again_at_us = None;
                    }
                }
                Event::Activated { tick } => watched.active_from = Some(tick.number()),
                Event::InputReplaced { tick } => {
                    assert!(!self.waits, "node {index}: input of {tick} was replaced");
                    watched.replaced.insert(tick.number());
                }
                Event::Desync(report) => self.desyncs.push(report),
                Event::Inspected(it) => panic!("nobody looks at {it:?}"),
                Event::ClaimRefused { slot, .. } => panic!("{slot:?} claimed something"),
                Event::Healed { tick } => panic!("node {index} healed at {tick}"),
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
                | Event::LostTicks { .. } => {
                    panic!("hosting does not move here")
                }
                Event::Message {
                    from,
                    channel: Channel::Reliable,
                    bytes,
                } => {
                    let number = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
                    let (heard, links) = if index == 0 {
                        let mut all = self.watched.iter();
                        let sender = all.find(|watched| watched.member == Some(from));
                        let links = sender.map_or(0, |sender| sender.links);
                        (self.host_heard.entry(from).or_default(), links)
                    } else {
                        (&mut watched.heard, watched.links)
                    };
                    let is_next = number == *heard + 1;
                    assert!(
                        is_next || number > *heard && links != 1,
                        "node {index}: message {number} from {from:?} after {heard}"
                    );
                    *heard = number;
                }
                Event::Ended { tick } => watched.ended = Some(tick.number()),
                Event::Refused { .. } => {
                    let us = self.us + 1_000_000;
                    if let Some(actor) = self.actor(index) {
                        actor.asks_again_at_us = Some(us);
                        actor.refusals += 1;
                    }
                }
                Event::JoinFailed { .. } => self.ask_again(index),
                Event::Disconnected { reason } => match reason {
                    DisconnectReason::Left | DisconnectReason::Bye(ByeReason::Ended) => {}
                    DisconnectReason::BadState
                    | DisconnectReason::Abandoned
                    | DisconnectReason::NoMajority(_)
                    | DisconnectReason::NobodyMayHost
                    | DisconnectReason::Bye(ByeReason::Fault | ByeReason::HostStops) => {
                        panic!("node {index}: {reason}")
                    }
                    DisconnectReason::Silence
                    | DisconnectReason::PathClosed(_)
                    | DisconnectReason::Bye(_) => self.ask_again(index),
                },
                Event::Member(_)
                | Event::Left { .. }
                | Event::Started
                | Event::Stalled { .. }
                | Event::Resumed { .. }
                | Event::Message { .. } => {}
            }
        }
    }

    /// Every tick that is settled here has the state that it has elsewhere, and the node's own
    /// inputs in it or an event that says so.
    pub(super) fn look_at_ticks(&mut self, index: Index) {
        let node = self.cluster.node(index);
        let settled = node.settled_tick().number();
        let slot = node.session().slot;
        let member = &self.cluster.members[index];
        let Some(toy) = member.driver.simulation() else {
            return;
        };
        if toy.tick().number() < settled {
            // The state of the tick from which it goes on is still on its way.
            return;
        }
        let watched = &mut self.watched[index];
        watched.checked = watched.checked.min(settled);
        for number in watched.checked + 1..=settled {
            let Some(footprint) = toy.footprint(Tick::new(number)) else {
                continue;
            };
            let (there, first) = self
                .states
                .entry(number)
                .or_insert_with(|| (footprint.clone(), index));
            assert_eq!(
                footprint, there,
                "nodes {index} and {first} differ after tick {number}"
            );
            let is_active = index == 0 || watched.active_from.is_some_and(|from| from <= number);
            let submitted = member.driver.player().submitted.get(&Tick::new(number));
            if let (Some(slot), Some(&submitted), true) = (slot, submitted, is_active) {
                let applied =
                    (footprint.present & slot.bit() != 0).then_some(footprint.inputs[slot.index()]);
                assert!(
                    applied == Some(submitted) || watched.replaced.contains(&number),
                    "node {index}: input {submitted} of tick {number} was lost: {applied:?} acted"
                );
            }
        }
        watched.checked = settled;
    }

    /// The clients that should take part: none of those that are gone, or that found no seat.
    pub(super) fn expected(&self) -> Vec<Index> {
        let host = self.cluster.node(0);
        let is_full = host.roster().players() >= usize::from(host.session().slots);
        let here = self.actors.iter().filter(|actor| {
            let is_out = actor.refusals > 0 && is_full && actor.config.role == Role::Player;
            let index = actor.index.unwrap_or(0);
            !actor.is_gone && (!is_out || self.has_link(index))
        });
        here.filter_map(|actor| actor.index).collect()
    }

    pub(super) fn has_link(&self, index: Index) -> bool {
        let member = self.cluster.node(index).session().member;
        let mut links = self.cluster.node(0).links();
        self.watched[index].links > 0 && links.any(|link| link.member == member)
    }

    /// Whether all expected clients are in step with the host; or who is not.
    pub(super) fn laggards(&self) -> Vec<Index> {
        let host = self.cluster.node(0).settled_tick().number();
        let delay = 60;
        let lags = |&index: &Index| {
            let node = self.cluster.node(index);
            let allowed = if node.session().slot.is_none() {
                delay + 30
            } else {
                30
            };
            let needs_part = node.session().slot.is_some();
            !self.has_link(index)
                || node.settled_tick().number() + allowed < host
                || needs_part && self.watched[index].active_from.is_none()
        };
        self.expected().into_iter().filter(lags).collect()
    }

    pub(super) fn look_at_sizes(&self) {
        for (index, member) in self.cluster.members.iter().enumerate() {
            let bytes = format!("{:?}", member.driver.node()).len();
            assert!(bytes < PRINTED_BYTES_MAX, "node {index} holds {bytes}");
        }
    }

    #[expect(
        clippy::print_stdout,
        reason = "shown with --nocapture, to look into a seed"
    )]
    pub(super) fn describe(&self) {
        println!(
            "seed {}: {:?}",
            self.seed,
            self.cluster.node(0).statistics()
        );
        println!("  host: {:?}", self.cluster.default_conditions());
        for actor in &self.actors {
            println!(
                "  {:?} {:?} {:?} for {:?}, joins {}, {:?} {:?}",
                actor.index,
                actor.config.role,
                actor.faults,
                actor.config.input_delay,
                actor.joins_at_us,
                actor.config.prediction_ticks,
                actor.conditions
            );
        }
    }
}
