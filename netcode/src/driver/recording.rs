//! What a driver writes into a replay file: ticks once nobody can order them anew, with the keyframes,
//! hashes and changes of host that belong to them; or the states of a session in state-sync mode.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::{Driver, Image, Player};
use crate::id::{MemberId, Slot, Term};
use crate::input::InputFrame;
use crate::link::replay_file::ReplayFile;
use crate::node::TermNews;
use crate::replay::{Header, TermCause, TermChange};
use crate::session::config::Mode;
use crate::session::handshake::TermStart;
use crate::simulation::Simulation;
use crate::state::Snapshot;
use crate::tick::Tick;

/// Hashes that wait for their ticks to be recorded, at most.
const HASHES_MAX: usize = 1024;

/// What a driver records.
pub(super) enum Recording<P: Player> {
    Off,
    /// Begins with the session.
    Wanted(std::path::PathBuf),
    On {
        file: Box<ReplayFile>,
        /// A state that becomes a keyframe once its tick is final.
        keyframe: Option<Image<P>>,
        /// How terms began whose first ticks are not recorded yet, ascending.
        terms: VecDeque<TermChange>,
        /// Hashes of ticks that are not recorded yet, ascending.
        hashes: VecDeque<(Tick, u64)>,
        /// The tick of the newest hash that is recorded.
        hashed: Option<Tick>,
        /// The tick of the first keyframe.
        start: Tick,
        /// The newest tick that is recorded.
        newest: Tick,
        /// Whether ticks are missing from here on, or what was recorded is void: no more is.
        is_cut: bool,
    },
    /// Of a session in state-sync mode: what a host publishes, or a client is shown.
    States(Box<ReplayFile>),
    Failed(io::Error),
}

impl<P: Player> Recording<P> {
    /// Saves the state at `tick` if it shall become a keyframe. It may run again before it is
    /// final, and is saved again then.
    pub(super) fn stepped(&mut self, tick: Tick, simulation: &mut P::Simulation) {
        let Self::On { file, keyframe, .. } = self else {
            return;
        };
        let wanted = match keyframe {
            Some(saved) => saved.tick == Some(tick),
            None => file.keyframe_due(tick),
        };
        if wanted {
            let saved = keyframe.get_or_insert_default();
            simulation.capture(&mut saved.image);
            saved.tick = Some(tick);
        }
    }

    /// Whether states in state-sync mode are of interest.
    pub(super) const fn takes_states(&self) -> bool {
        match self {
            Self::Wanted(_) | Self::States(_) => true,
            Self::Off | Self::On { .. } | Self::Failed(_) => false,
        }
    }

    /// Records a state in state-sync mode.
    pub(super) fn state(&mut self, state: &Snapshot) {
        if let Self::States(file) = self {
            file.state(state);
        }
    }

    pub(super) fn confirmed(&mut self, frame: &InputFrame, simulation: Option<&P::Simulation>) {
        let Self::On {
            file,
            keyframe,
            terms,
            hashes,
            hashed,
            newest,
            is_cut,
            ..
        } = self
        else {
            return;
        };
        if *is_cut || frame.tick() <= *newest {
            return;
        }
        // A state that came from elsewhere leaves out ticks. What is there until then is whole.
        *is_cut = frame.tick() > newest.next();
        if *is_cut {
            return;
        }
        *newest = frame.tick();
        while let Some(change) = terms.pop_front_if(|change| change.takeover <= *newest) {
            file.term_changed(change);
        }
        file.frame(frame);
        if let Some(simulation) = simulation
            && let Some(saved) = keyframe.take_if(|saved| saved.tick == Some(frame.tick()))
        {
            file.keyframe(simulation.export(&saved.image));
        }
        while let Some((tick, hash)) = hashes.pop_front_if(|(tick, _)| *tick <= *newest) {
            if hashed.is_none_or(|hashed| tick > hashed) {
                file.hash(tick, hash);
                *hashed = Some(tick);
            }
        }
        // A state that was passed over, by a jump or a heal, must not keep later ones out.
        keyframe.take_if(|saved| saved.tick < Some(frame.tick()));
    }

    /// Notes how a term began. It is recorded with its first tick: until then another one may
    /// begin at the same.
    pub(super) fn term_begins(&mut self, begun: &TermStart) {
        let Self::On {
            terms,
            start,
            newest,
            is_cut,
            ..
        } = self
        else {
            return;
        };
        let takeover = Tick::new(begun.base).next();
        *is_cut |= takeover <= *newest && takeover > *start;
        if takeover > *start && !*is_cut {
            while terms
                .pop_back_if(|earlier| earlier.takeover >= takeover)
                .is_some()
            {}
            terms.push_back(TermChange {
                takeover,
                term: Term(begun.term),
                host: MemberId(begun.host),
                cause: if begun.is_planned {
                    TermCause::Handover
                } else {
                    TermCause::Failover
                },
            });
        }
    }

    /// What was ordered after `tick` is void, and terms that began there are no more.
    pub(super) fn terms_end(&mut self, tick: Tick) {
        if let Self::On {
            terms,
            newest,
            is_cut,
            ..
        } = self
        {
            *is_cut |= tick < *newest;
            while terms.pop_back_if(|begun| begun.takeover > tick).is_some() {}
        }
    }

    /// What ran after `tick` runs again, on other inputs maybe.
    pub(super) fn went_back(&mut self, tick: Tick) {
        if let Self::On {
            keyframe, hashes, ..
        } = self
        {
            keyframe.take_if(|saved| saved.tick > Some(tick));
            while hashes.pop_back_if(|(later, _)| *later > tick).is_some() {}
        }
    }

    /// Notes the hash of the state at `tick`. It is recorded once its tick is: until then the tick
    /// may run again on other inputs, and another hash takes its place.
    pub(super) fn hash(&mut self, tick: Tick, hash: u64) {
        let Self::On {
            file,
            hashes,
            hashed,
            newest,
            is_cut,
            ..
        } = self
        else {
            return;
        };
        while hashes.pop_back_if(|(later, _)| *later >= tick).is_some() {}
        if *is_cut || hashes.len() >= HASHES_MAX {
            return;
        }
        if tick > *newest {
            hashes.push_back((tick, hash));
        } else if hashed.is_none_or(|hashed| tick > hashed) {
            file.hash(tick, hash);
            *hashed = Some(tick);
        }
    }
}

impl<P: Player> Driver<P> {
    /// Opens the file, with the present state as its first keyframe; in state-sync mode, with what
    /// was published or shown last.
    pub(super) fn begin_recording(&mut self) {
        let (Recording::Wanted(path), Some(simulation)) = (&self.recording, &mut self.simulation)
        else {
            return;
        };
        let state = if self.node.is_host() {
            &self.published
        } else {
            &self.shown
        };
        if self.game.mode == Mode::StateSync && state.kinds.is_empty() {
            return;
        }
        let session = self.node.session();
        let roster = (0..session.slots)
            .map(|slot| {
                let member = self.node.roster().in_slot(Slot(slot));
                member.map(|member| member.name.clone()).unwrap_or_default()
            })
            .collect();
        let header = Header {
            game: self.game.game.clone(),
            build: self.game.build.clone(),
            mode: self.game.mode,
            tick_rate: session.tick_rate,
            input_bytes: session.input_bytes,
            // Replays of states are for everyone, and need no more.
            seed: match self.game.mode {
                Mode::Lockstep => session.seed,
                Mode::StateSync => session.public_seed,
            },
            session: session.session,
            schema: Arc::clone(&self.game.schema),
            roster,
            start: match self.game.mode {
                Mode::Lockstep => simulation.tick(),
                Mode::StateSync => state.tick,
            },
        };
        self.recording = match ReplayFile::create(path, &header) {
            Ok(mut file) if self.game.mode == Mode::StateSync => {
                file.state(state);
                Recording::States(Box::new(file))
            }
            Ok(mut file) => {
                let mut image = <P::Simulation as Simulation>::Image::default();
                simulation.capture(&mut image);
                file.keyframe(simulation.export(&image));
                Recording::On {
                    file: Box::new(file),
                    keyframe: None,
                    terms: VecDeque::new(),
                    hashes: VecDeque::new(),
                    hashed: None,
                    start: header.start,
                    newest: header.start,
                    is_cut: false,
                }
            }
            Err(error) => Recording::Failed(error),
        };
    }

    /// Records what this host has published. If it was a client before, what it was shown last
    /// comes first; what it publishes of the same time was recorded then.
    pub(super) fn record_published(&mut self) {
        if !self.shown.kinds.is_empty() && self.recording.takes_states() {
            if self.published.tick <= self.shown.tick {
                return;
            }
            self.recording.state(&self.shown);
            self.shown = Snapshot::default();
        }
        self.recording.state(&self.published);
    }

    pub(super) fn drain_confirmed(&mut self) {
        while let Some(news) = self.node.poll_term_news() {
            match news {
                TermNews::Back(tick) => self.recording.terms_end(tick),
                TermNews::Begun(start) => self.recording.term_begins(&start),
            }
        }
        while let Some(frame) = self.node.poll_confirmed() {
            self.recording.confirmed(frame, self.simulation.as_ref());
        }
    }

    /// Records the hash of the present state, so that a replay is verified to its very end, and a
    /// short one at all.
    pub(super) fn record_last_hash(&mut self) {
        self.drain_confirmed();
        let tick = self.node.settled_tick();
        let is_new = self.newest_hash.is_none_or(|(newest, _)| newest < tick);
        let is_here = self
            .simulation
            .as_ref()
            .is_some_and(|simulation| simulation.tick() == tick);
        if matches!(self.recording, Recording::On { .. }) && is_new && is_here && self.hash_at(tick)
        {
            let hash = self.hash.combined();
            self.newest_hash = Some((tick, hash));
            self.recording.hash(tick, hash);
        }
    }
}
