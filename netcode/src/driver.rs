//! The pump: link, node, simulation and recorder, joined by one short loop.
//!
//! A driver is the same over UDP, in memory and in a simulator; it owns no clock and no socket. It
//! obeys the node's requests on a [`Simulation`] and keeps the ring of its captured states.

mod recording;

use std::fmt;
use std::path::Path as FilePath;

use crate::id::Term;
use crate::input::InputFrame;
use crate::link::replay_file::RecordError;
use crate::link::{Link, LinkEvent};
use crate::node::{Event, Node, Request, SessionInfo};
use crate::replay::Summary;
use crate::session::config::{GameInfo, Mode};
use crate::simulation::Simulation;
use crate::state::{KindRows, Snapshot, StateHash};
use crate::statesync::Publisher;
use crate::tick::Tick;
use crate::time::Time;

use recording::Recording;

/// What a driver asks of the game.
pub trait Player {
    /// The game's simulation.
    type Simulation: Simulation;

    /// Makes the initial state of a session, or one that a snapshot will replace.
    fn begin(&mut self, session: &SessionInfo) -> Self::Simulation;

    /// Makes a state that the host's will replace, for a second simulation: this node is a standby of
    /// a session in state-sync mode. The same as for a session that begins, if nothing else is said.
    fn begin_standby(&mut self, session: &SessionInfo) -> Self::Simulation {
        self.begin(session)
    }

    /// Writes the local player's input for `tick` into `input`, which is all zeros.
    fn sample(&mut self, tick: Tick, simulation: &Self::Simulation, input: &mut [u8]);

    /// Sets rules of who sees what: this node publishes the session's state with `publisher`, or may do
    /// so later, as it stands by. How far clients see is handed on by itself.
    fn publishes(&mut self, publisher: &mut Publisher) {
        let _ = publisher;
    }

    /// Takes notice that `simulation` has run a tick for the first time: the place for sounds,
    /// effects and statistics. Ticks that run again after a rollback are not reported.
    fn stepped(&mut self, simulation: &Self::Simulation, frame: &InputFrame) {
        let _ = (simulation, frame);
    }
}

/// Runs one node's session; see the [module](self).
pub struct Driver<P: Player> {
    node: Node,
    game: GameInfo,
    player: P,
    simulation: Option<P::Simulation>,
    images: Vec<Image<P>>,
    hash: StateHash,
    /// Memory for what is published.
    published: Snapshot,
    /// On a standby: what runs the host's ticks, and its newest state that was the host's.
    standby: Option<(P::Simulation, <P::Simulation as Simulation>::Image)>,
    /// Memory for what that publishes.
    stood_by: Snapshot,
    /// Memory for all of the state.
    exact: Snapshot,
    /// What a client that records was shown last, and has not recorded yet.
    shown: Snapshot,
    newest_hash: Option<(Tick, u64)>,
    recording: Recording<P>,
    input: Vec<u8>,
    datagram: Vec<u8>,
}

struct Image<P: Player> {
    tick: Option<Tick>,
    image: <P::Simulation as Simulation>::Image,
}

impl<P: Player> Driver<P> {
    /// A driver of `node`, which plays `game`.
    #[must_use]
    pub fn new(node: Node, game: GameInfo, player: P) -> Self {
        Self {
            node,
            game,
            player,
            simulation: None,
            images: Vec::new(),
            hash: StateHash::default(),
            published: Snapshot::default(),
            standby: None,
            stood_by: Snapshot::default(),
            exact: Snapshot::default(),
            shown: Snapshot::default(),
            newest_hash: None,
            recording: Recording::Off,
            input: Vec::new(),
            datagram: Vec::with_capacity(crate::limits::DATAGRAM_BYTES_MAX),
        }
    }

    /// Records the session into a file, from its first tick that this node has. In state-sync mode a
    /// host records what it publishes, and a client what it is shown if this is called before it
    /// has joined.
    pub fn record(&mut self, file: impl AsRef<FilePath>) {
        self.recording = Recording::Wanted(file.as_ref().to_owned());
    }

    /// Ends the recording, and waits until the file is complete. `None` if nothing was recorded.
    ///
    /// # Errors
    /// If the file could not be created or written; what was written before is valid.
    pub fn finish_recording(&mut self) -> Option<Result<Summary, RecordError>> {
        self.record_last_hash();
        match core::mem::replace(&mut self.recording, Recording::Off) {
            Recording::Off | Recording::Wanted(_) => None,
            Recording::On { file, .. } => Some(file.finish()),
            Recording::States(mut file) => {
                if !self.shown.kinds.is_empty() {
                    file.state(&self.shown);
                }
                Some(file.finish())
            }
            Recording::Failed(error) => Some(Err(RecordError::Write(error.into()))),
        }
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// The node, for commands.
    pub const fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// The simulation, once there is a state.
    #[must_use]
    pub const fn simulation(&self) -> Option<&P::Simulation> {
        self.simulation.as_ref()
    }

    /// On a standby of a state-sync session: the simulation that runs the host's ticks.
    #[must_use]
    pub fn standby(&self) -> Option<&P::Simulation> {
        self.standby.as_ref().map(|(simulation, _)| simulation)
    }

    /// The simulation, to change what is not state: what the driver of a renderer needs.
    pub const fn simulation_mut(&mut self) -> Option<&mut P::Simulation> {
        self.simulation.as_mut()
    }

    /// The game's side.
    #[must_use]
    pub const fn player(&self) -> &P {
        &self.player
    }

    /// The game's side.
    pub const fn player_mut(&mut self) -> &mut P {
        &mut self.player
    }

    /// The newest state hash that the node asked for.
    #[must_use]
    pub const fn newest_hash(&self) -> Option<(Tick, u64)> {
        self.newest_hash
    }

    /// The combined hash of the current state; `None` before there is one.
    pub fn state_hash(&mut self) -> Option<u64> {
        let simulation = self.simulation.as_mut()?;
        simulation.hash(&mut self.hash);
        Some(self.hash.combined())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.node.poll_event()
    }

    /// When to call [`Driver::pump`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.node.poll_timeout()
    }

    /// Takes in what has arrived, does what is due at `now`, and sends what is to be sent.
    pub fn pump(&mut self, now: Time, link: &mut impl Link) {
        while let Some(event) = link.receive() {
            match event {
                LinkEvent::Opened { path, .. } => self.node.handle_path_opened(now, path),
                LinkEvent::Datagram { path, bytes } => {
                    self.node.handle_datagram(now, path, bytes);
                    self.obey(now);
                }
                LinkEvent::Closed { path, reason } => {
                    self.node.handle_path_closed(now, path, reason);
                    self.obey(now);
                }
            }
        }
        self.node.handle_timeout(now);
        self.obey(now);
        self.transmit(now, link);
    }

    /// Sends what is to be sent.
    pub fn transmit(&mut self, now: Time, link: &mut impl Link) {
        self.introduce(now, link);
        while let Some(path) = self.node.poll_transmit(now, &mut self.datagram) {
            link.send(path, &self.datagram);
        }
        while let Some(path) = self.node.poll_close() {
            link.close(path);
        }
        link.flush();
    }

    /// Asks the link what the node wants of it to reach the other members.
    fn introduce(&mut self, now: Time, link: &mut impl Link) {
        while let Some(path) = self.node.poll_address() {
            self.node.handle_address(now, path, link.address(path));
        }
        while let Some((member, public_key)) = self.node.poll_invite() {
            let invitation = link.invite(member, &public_key);
            self.node.handle_invitation(member, invitation);
        }
        while let Some((member, old)) = self.node.poll_reopen(now) {
            let path = link.reopen(old);
            self.node.handle_path_reopen(now, member, path);
        }
        while let Some(opening) = self.node.poll_open(now) {
            let path = link.open(&opening);
            let (member, public_key) = (opening.member, link.public_key());
            self.node.handle_path_open(now, member, path, public_key);
        }
    }

    /// Carries out the node's requests, in order.
    fn obey(&mut self, now: Time) {
        let begins_with_step = self.game.mode == Mode::Lockstep || self.node.is_host();
        while let Some(request) = self.node.poll_request() {
            match request {
                Request::Begin(session) => {
                    let mut simulation = self.player.begin(session);
                    if let Some(before) = &mut self.simulation {
                        simulation.succeed(before);
                    }
                    self.simulation = Some(simulation);
                    let images = usize::try_from(session.images).unwrap_or(0);
                    self.images.clear();
                    self.images.resize_with(images, Image::default);
                    if let Some(publisher) = self.node.publisher_mut() {
                        self.player.publishes(publisher);
                    }
                }
                Request::Sample { tick } => {
                    self.input.clear();
                    self.input.resize(usize::from(self.game.input_bytes), 0);
                    if let Some(simulation) = &self.simulation {
                        self.player.sample(tick, simulation, &mut self.input);
                    }
                    self.node
                        .submit_input(now, &self.input)
                        .expect("the node has just asked for an input of this size");
                    // The input may have made a tick final that has not run yet, and its state
                    // may be a keyframe: its step comes first.
                    continue;
                }
                Request::Step { frame, kind } => {
                    // Recording begins with the first step: by then it is known who plays.
                    let wanted = matches!(self.recording, Recording::Wanted(_));
                    let first = (begins_with_step && wanted).then(|| frame.clone());
                    let frame = if let Some(frame) = &first {
                        self.begin_recording();
                        frame
                    } else {
                        frame
                    };
                    if let Some(simulation) = &mut self.simulation {
                        simulation.step(frame, kind);
                        if kind == crate::simulation::StepKind::First {
                            self.player.stepped(simulation, frame);
                        }
                        self.recording.stepped(frame.tick(), simulation);
                    }
                }
                Request::Capture { tick } => self.capture(tick),
                Request::Restore { tick } => {
                    let image = ring(&self.images, tick);
                    let is_restored = match (&mut self.simulation, image) {
                        (Some(simulation), Some(image)) => {
                            simulation.restore(image);
                            true
                        }
                        _ => false,
                    };
                    if is_restored {
                        self.recording.went_back(tick);
                    }
                    self.node.commit_restore(now, is_restored);
                }
                Request::Hash { tick } => {
                    let hash = self.hash_at(tick);
                    self.node.commit_hash(tick, hash.then_some(&self.hash));
                    if hash {
                        self.newest_hash = Some((tick, self.hash.combined()));
                        self.recording.hash(tick, self.hash.combined());
                    }
                }
                Request::Export { tick } => {
                    let bytes = self.export(tick);
                    self.node.commit_snapshot(tick, bytes);
                }
                Request::Import { bytes } => {
                    let snapshot = Snapshot::decode(bytes, &self.game.schema).ok();
                    let tick = self.import(snapshot);
                    self.node.commit_import(now, tick);
                }
                Request::Publish { tick } => {
                    if let Some(simulation) = &mut self.simulation {
                        simulation.publish(&mut self.published);
                        debug_assert_eq!(self.published.tick, tick, "the current state");
                        self.node.commit_publish(&self.published);
                        self.record_published();
                    }
                }
                Request::Authority { tick, needs_state } => {
                    if let Some(simulation) = &mut self.simulation {
                        simulation.hash(&mut self.hash);
                        let hash = self.hash.without_derived(&self.game.schema).combined();
                        if needs_state {
                            simulation.capture_exact(&mut self.exact);
                        }
                        let state = needs_state.then_some(&mut self.exact);
                        self.node.commit_authority(tick, hash, state);
                    }
                }
                Request::Promote {
                    tick,
                    term,
                    state,
                    past,
                } => {
                    let states: Vec<Snapshot> = past.into_iter().chain(state).cloned().collect();
                    if let Some(publisher) = self.node.publisher_mut() {
                        self.player.publishes(publisher);
                    }
                    if !self.promote(tick, term, &states) {
                        self.node.commit_restore(now, false);
                    }
                }
                Request::StandByFrom(state) => {
                    let state = state.clone();
                    let is_imported = self.stand_by(&state);
                    self.node.commit_stand_by(is_imported);
                }
                Request::StandByStep {
                    frame,
                    seen,
                    wants_hash,
                    publishes,
                } => {
                    if let Some((simulation, image)) = &mut self.standby {
                        for &(slot, behind_ticks) in seen {
                            simulation.seen(slot, behind_ticks);
                        }
                        simulation.step(frame, crate::simulation::StepKind::First);
                        let hash = wants_hash.then(|| {
                            simulation.hash(&mut self.hash);
                            self.hash.without_derived(&self.game.schema).combined()
                        });
                        if self.node.commit_stand_by_step(hash) {
                            if publishes {
                                simulation.publish(&mut self.stood_by);
                                let is_first = self.node.commit_stand_by_publish(&self.stood_by);
                                if is_first && let Some(publisher) = self.node.publisher_mut() {
                                    self.player.publishes(publisher);
                                }
                            }
                            if wants_hash {
                                simulation.capture(image);
                            }
                        } else {
                            simulation.restore(image);
                        }
                    }
                }
                Request::PublishOwned { tick, slot } => {
                    if let Some(simulation) = &mut self.simulation {
                        simulation.publish_owned(slot, &mut self.published);
                        debug_assert_eq!(self.published.tick, tick, "the current state");
                        self.node.commit_owned(&self.published);
                    }
                }
                Request::Patch(patch) => {
                    let simulation = self.simulation.as_mut();
                    let is_patched = simulation.is_some_and(|sim| sim.patch(patch).is_ok());
                    let is_known = patch.is_whole || !self.shown.kinds.is_empty();
                    let records = is_patched && is_known && self.recording.takes_states();
                    // A state counts as shown once a newer one follows: until then it may become
                    // more complete.
                    let is_newer = patch.tick > self.shown.tick && !self.shown.kinds.is_empty();
                    let wanted = matches!(self.recording, Recording::Wanted(_));
                    let first = (records && is_newer && wanted).then(|| (*patch).clone());
                    let patch = if let Some(patch) = &first {
                        self.begin_recording();
                        patch
                    } else {
                        patch
                    };
                    if records {
                        if is_newer && first.is_none() {
                            self.recording.state(&self.shown);
                        }
                        let kinds = self.game.schema.kinds().len();
                        self.shown.kinds.resize_with(kinds, KindRows::default);
                        patch.apply_to(&self.game.schema, &mut self.shown);
                    }
                    self.node.commit_patch(now, is_patched);
                }
                Request::PublishDecided { tick, slot } => {
                    if let Some(simulation) = &mut self.simulation {
                        simulation.publish_decided(slot, &mut self.published);
                        debug_assert_eq!(self.published.tick, tick, "the current state");
                        self.node.commit_decided(&self.published);
                    }
                }
                Request::Overwrite(patch) => {
                    if let Some(simulation) = &mut self.simulation {
                        // Rows that this simulation itself gave out; without them it only shows
                        // the host's word for a while.
                        let _fits = simulation.overwrite(patch);
                    }
                }
                Request::Claim { slot, id, patch } => {
                    let simulation = self.simulation.as_mut();
                    let taken = simulation.is_some_and(|it| it.claim(slot, id, patch).is_ok());
                    self.node.commit_claim(taken);
                }
                Request::Seen { slot, behind_ticks } => {
                    if let Some(simulation) = &mut self.simulation {
                        simulation.seen(slot, behind_ticks);
                    }
                }
            }
            self.drain_confirmed();
        }
    }

    fn capture(&mut self, tick: Tick) {
        let count = self.images.len();
        if let Some(simulation) = &mut self.simulation
            && count > 0
        {
            let place = &mut self.images[tick.number() as usize % count];
            simulation.capture(&mut place.image);
            place.tick = Some(tick);
        }
    }

    /// Hashes the state at `tick` into `self.hash`, if it is there.
    fn hash_at(&mut self, tick: Tick) -> bool {
        let Some(simulation) = &mut self.simulation else {
            return false;
        };
        if simulation.tick() == tick {
            simulation.hash(&mut self.hash);
            return true;
        }
        let Some(image) = ring(&self.images, tick) else {
            return false;
        };
        simulation.hash_image(image, &mut self.hash);
        true
    }

    fn export(&mut self, tick: Tick) -> Option<Vec<u8>> {
        let simulation = self.simulation.as_mut()?;
        let snapshot = if let Some(image) = ring(&self.images, tick) {
            simulation.export(image)
        } else if simulation.tick() == tick {
            let mut image = <P::Simulation as Simulation>::Image::default();
            simulation.capture(&mut image);
            simulation.export(&image)
        } else {
            return None;
        };
        let mut bytes = Vec::new();
        snapshot.encode(&self.game.schema, &mut bytes);
        Some(bytes)
    }

    fn import(&mut self, snapshot: Option<Snapshot>) -> Option<Tick> {
        let snapshot = snapshot?;
        if self.simulation.is_none() {
            let session = self.node.session();
            let images = usize::try_from(session.images).unwrap_or(0);
            self.images.resize_with(images, Image::default);
            self.simulation = Some(self.player.begin(session));
        }
        let simulation = self.simulation.as_mut()?;
        simulation.import(&snapshot).ok()?;
        self.images.iter_mut().for_each(|place| place.tick = None);
        Some(snapshot.tick)
    }

    /// Makes what this node stood by with the state of the session. `states` are what it took over
    /// instead of running, oldest first.
    fn promote(&mut self, tick: Tick, term: Term, states: &[Snapshot]) -> bool {
        for state in states {
            if !self.stand_by(state) {
                return false;
            }
        }
        let Some((mut simulation, _)) = self.standby.take() else {
            return false;
        };
        if simulation.tick() != tick {
            return false;
        }
        simulation.become_authority();
        simulation.begin_term(term);
        if let Some(before) = &mut self.simulation {
            simulation.succeed(before);
        }
        self.simulation = Some(simulation);
        core::mem::swap(&mut self.published, &mut self.stood_by);
        self.images.clear();
        true
    }

    /// Lets a second simulation take over a state of the host.
    fn stand_by(&mut self, state: &Snapshot) -> bool {
        let (simulation, image) = self.standby.get_or_insert_with(|| {
            let simulation = self.player.begin_standby(self.node.session());
            (simulation, <P::Simulation as Simulation>::Image::default())
        });
        simulation.become_authority();
        let is_imported = simulation.import(state).is_ok();
        if is_imported {
            simulation.capture(image);
        }
        is_imported
    }
}

impl<P: Player> fmt::Debug for Driver<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl<P: Player> Default for Image<P> {
    fn default() -> Self {
        Self {
            tick: None,
            image: <P::Simulation as Simulation>::Image::default(),
        }
    }
}

fn ring<P: Player>(
    images: &[Image<P>],
    tick: Tick,
) -> Option<&<P::Simulation as Simulation>::Image> {
    let place = images.get((tick.number() as usize).checked_rem(images.len())?)?;
    (place.tick == Some(tick)).then_some(&place.image)
}
