//! A node: this process's protocol machine, without clock, socket or thread.
//!
//! A driver passes in what arrives and what time it is, and takes out what to do, in this order:
//!
//! 1. `handle_datagram`, `handle_path_closed`, `handle_timeout`, or a command;
//! 2. [`Node::poll_request`] until it is empty: obey each request before the next poll;
//! 3. [`Node::poll_confirmed`], if inputs are recorded;
//! 4. [`Node::poll_transmit`] until it is empty;
//! 5. [`Node::poll_event`] and [`Node::poll_close`], when convenient; where hosting may move also
//!    [`Node::poll_address`], [`Node::poll_invite`] and [`Node::poll_open`];
//! 6. sleep until [`Node::poll_timeout`] or until something arrives.
//!
//! Same settings, same calls: same bytes out, in every process.

mod answers;
mod api;
mod audience;
mod client;
mod core;
mod desync;
mod doctor;
mod former;
mod guest;
mod host;
mod hosting;
mod mesh;
mod seat;
mod standby;
mod state_sync;
mod strangers;
mod takeover;
mod warm;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::{MemberId, Path, Slot};
use crate::input::InputFrame;
use crate::session::close::CloseReason;
use crate::session::config::{ConfigError, GameInfo, HostConfig, JoinConfig};
use crate::session::messages::{Channel, SendError};
use crate::session::roster::Roster;
use crate::session::statistics::{NodeStatistics, PeerStatistics};
use crate::state::{Shapes, WireLayout};
use crate::statesync::Publisher;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::kind;

pub use api::{DesyncReport, DisconnectReason, Event, Request, SessionInfo};
pub use audience::Inspection;
pub(crate) use core::term_log::TermNews;
pub use standby::StandbyStatistics;
pub use state_sync::{Received, StateSyncStatistics};
pub use takeover::{Prepare, StepDown, TakeOver, TakeOverError, Warm};
pub use warm::MeshLink;

use self::client::Client;
use self::core::{Core, ExportFor, Todo};
use self::former::Former;
use self::host::Host;
use self::hosting::Hosting;
use self::mesh::Mesh;
use self::standby::Standby;
use self::strangers::Strangers;

/// A node of a session; see the [module](self).
#[derive(Debug)]
pub struct Node {
    core: Core,
    role: Role,
    exporting: Option<ExportFor>,
    /// What this node held as a standby when it became the host.
    promoted: Option<Box<Standby>>,
    /// The warm links to the other members, where hosting may move.
    mesh: Option<Box<Mesh>>,
    /// Who hosts, where members elect.
    hosting: Option<Box<Hosting>>,
    /// Who is to be met by way of other members, and who by way of this one.
    strangers: Strangers,
    /// The session before this node went on alone, if it did.
    former: Option<Box<Former>>,
    /// The last datagrams of a host that has handed over.
    parting: VecDeque<(Path, Vec<u8>)>,
}

#[derive(Debug)]
enum Role {
    Host(Box<Host>),
    Client(Box<Client>),
}

/// Why an input was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// None was asked for.
    #[error("no input was asked for; answer Request::Sample")]
    NotAsked,
    /// It has another size than the session's inputs.
    #[error("an input of this session has {expected} bytes, not {found}")]
    Size {
        /// Bytes of the session's inputs.
        expected: u8,
        /// Bytes given.
        found: usize,
    },
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// No such member has a link to this node. Clients reach the host only.
    #[error("no link to member {}", .0.0)]
    NoLink(MemberId),
    /// The link does not take it.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// A link's measured quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkQuality {
    /// Whose link.
    pub member: MemberId,
    /// Smoothed round trip in microseconds, if measured.
    pub rtt_us: Option<u64>,
    /// Its deviation in microseconds.
    pub jitter_us: u64,
    /// Share of its datagrams that did not arrive here, in 1/256.
    pub loss: u8,
    /// Counters.
    pub statistics: PeerStatistics,
}

impl Node {
    /// Opens a session as its host.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub fn host(config: HostConfig, now: Time) -> Result<Self, ConfigError> {
        config.check()?;
        let (host, core) = Host::new(config, now);
        let mut node = Self {
            core,
            role: Role::Host(Box::new(host)),
            exporting: None,
            promoted: None,
            mesh: None,
            hosting: None,
            strangers: Strangers::default(),
            former: None,
            parting: VecDeque::new(),
        };
        node.found_terms(now);
        Ok(node)
    }

    /// Asks the host behind `path` to join.
    ///
    /// # Errors
    /// If the settings cannot be used.
    pub fn join(config: JoinConfig, path: Path, now: Time) -> Result<Self, ConfigError> {
        config.check()?;
        let (client, core) = Client::new(config, path, now);
        Ok(Self {
            core,
            role: Role::Client(Box::new(client)),
            exporting: None,
            promoted: None,
            mesh: None,
            hosting: None,
            strangers: Strangers::default(),
            former: None,
            parting: VecDeque::new(),
        })
    }

    // ---- getters ----

    /// The session; of a client before its welcome, a placeholder.
    #[must_use]
    pub const fn session(&self) -> &SessionInfo {
        &self.core.info
    }

    /// What this node's game has in common with that of the others.
    #[must_use]
    pub fn game(&self) -> &GameInfo {
        match &self.role {
            Role::Host(host) => &host.config.game,
            Role::Client(client) => &client.config.game,
        }
    }

    /// Who takes part.
    #[must_use]
    pub const fn roster(&self) -> &Roster {
        &self.core.roster
    }

    /// Whether this node hosts.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        matches!(self.role, Role::Host(_))
    }

    /// The newest tick that ran.
    #[must_use]
    pub const fn tick(&self) -> Tick {
        self.core.timeline.simulated()
    }

    /// The newest tick that ran on final inputs only.
    #[must_use]
    pub const fn settled_tick(&self) -> Tick {
        self.core.timeline.settled()
    }

    /// Ticks between sampling an input and the tick on which it acts, at present.
    #[must_use]
    pub fn input_delay(&self) -> u32 {
        match &self.role {
            Role::Host(host) => host.input_delay(),
            Role::Client(client) => client.input_delay(),
        }
    }

    /// How much of the newest tick's time has passed at `now`, 0 to 1; 1 while the next tick is
    /// late. For those who draw between two ticks.
    #[must_use]
    pub fn part_of_tick(&self, now: Time) -> f32 {
        let clock = &self.core.clock;
        let tick_us = self.core.rate.tick_us().max(1);
        if self.core.timeline.simulated() < clock.tick() {
            return 1.0;
        }
        let left_us = clock.next_due().micros_since(now).min(tick_us);
        #[expect(clippy::cast_precision_loss, reason = "a share of a tick, for the eye")]
        let left = left_us as f32 / tick_us as f32;
        1.0 - left
    }

    /// How much faster than real time this node's ticks come, in parts per million.
    #[must_use]
    pub fn dilation_ppm(&self) -> i64 {
        self.core.clock.dilation_ppm()
    }

    /// Counters of this node.
    #[must_use]
    pub const fn statistics(&self) -> &NodeStatistics {
        &self.core.statistics
    }

    /// The links of this node: a host's to its members, a client's to its host.
    pub fn links(&self) -> impl Iterator<Item = LinkQuality> {
        let (guests, peer) = match &self.role {
            Role::Host(host) => (Some(host.guests.values().map(|guest| &guest.peer)), None),
            Role::Client(client) => (None, Some(&client.peer)),
        };
        guests
            .into_iter()
            .flatten()
            .chain(peer)
            .map(|peer| LinkQuality {
                member: peer.member,
                rtt_us: peer.rtt.smoothed_us(),
                jitter_us: peer.rtt.deviation_us(),
                loss: peer.loss(),
                statistics: peer.statistics,
            })
    }

    /// Counters of state-sync mode; `None` in lockstep, and on a client before its welcome.
    #[must_use]
    pub fn state_sync(&self) -> Option<StateSyncStatistics> {
        match &self.role {
            Role::Host(host) => host.audience.as_ref().map(|audience| audience.statistics),
            Role::Client(client) => client.state_sync(),
        }
    }

    /// The states of the host that a client in state-sync mode took over last, oldest first: what
    /// a renderer interpolates. None on a host.
    pub fn received(&self) -> impl Iterator<Item = &Received> {
        let client = match &self.role {
            Role::Host(_) => None,
            Role::Client(client) => Some(client),
        };
        client.into_iter().flat_map(|client| client.received())
    }

    /// How values lie in [`Node::received`]; `None` where there are none.
    #[must_use]
    pub fn wire_tables(&self) -> Option<(&Arc<WireLayout>, &Shapes)> {
        match &self.role {
            Role::Host(_) => None,
            Role::Client(client) => client.wire_tables(),
        }
    }

    /// What a host in state-sync mode publishes with, or a standby would if it hosted: interest, rules
    /// and accounts are set there. Standbys are told the host's interest; rules are the game's.
    pub fn publisher_mut(&mut self) -> Option<&mut Publisher> {
        match &mut self.role {
            Role::Host(host) => host
                .audience
                .as_mut()
                .map(|audience| &mut audience.publisher),
            Role::Client(client) => client.standby.as_mut()?.dormant_publisher(),
        }
    }

    /// Counts from here on what each client is sent, by component and field, or stops to: see
    /// [`Node::inspections`] and [`Event::Inspected`]. It costs: the host notes every field of every
    /// body. False, and without effect, but on a host in state-sync mode.
    pub fn inspect(&mut self, on: bool) -> bool {
        match &mut self.role {
            Role::Host(host) => host.inspect(on),
            Role::Client(_) => false,
        }
    }

    /// What each client was sent since [`Node::inspect`] was switched on, or since it came.
    pub fn inspections(&self) -> impl Iterator<Item = Inspection> {
        let host = match &self.role {
            Role::Host(host) => Some(host),
            Role::Client(_) => None,
        };
        host.into_iter().flat_map(|host| host.inspections())
    }

    /// Whether this node has done all that it had to, and nothing is left to send.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.role {
            Role::Host(host) => host.is_over(&self.core),
            Role::Client(client) => client.is_over(),
        }
    }

    // ---- what arrives ----

    /// Takes a datagram. Whatever its bytes are: it is used, or dropped and counted.
    pub fn handle_datagram(&mut self, now: Time, path: Path, bytes: &[u8]) {
        if bytes.first() == Some(&kind::MESH) {
            match self.take_mesh_datagram(now, path, bytes) {
                Ok(()) => {
                    self.core.statistics.datagrams_received += 1;
                    self.core.statistics.bytes_received += bytes.len() as u64;
                }
                Err(reason) => self.core.statistics.drops.count(reason),
            }
            self.drive_terms(now);
            return;
        }
        self.check_lease(now);
        self.check_promise();
        match &mut self.role {
            Role::Host(host) => host.handle_datagram(&mut self.core, now, path, bytes),
            Role::Client(client) => client.handle_datagram(&mut self.core, now, path, bytes),
        }
        self.heard_ticks(now, path);
        self.tend_mesh(now);
        self.drive_terms(now);
    }

    /// Takes notice that nothing will arrive over `path` any more.
    pub fn handle_path_closed(&mut self, now: Time, path: Path, reason: CloseReason) {
        self.check_lease(now);
        // Where members elect, the end of the path to a host is at first no more than its silence.
        let is_elected = self.hosting.is_some();
        for mesh in self.meshes() {
            mesh.handle_path_closed(now, path);
        }
        let seeks = self.mesh.as_ref().is_some_and(|mesh| mesh.is_seeking());
        match &mut self.role {
            Role::Host(host) => host.handle_path_closed(&mut self.core, now, path),
            Role::Client(client) if is_elected => {
                client.note_path_closed(&mut self.core, now, path, reason, seeks);
            }
            Role::Client(client) => client.handle_path_closed(&mut self.core, path, reason),
        }
        self.tend_mesh(now);
        self.drive_terms(now);
    }

    /// Does what is due at `now`. Call it when [`Node::poll_timeout`] says so; earlier and later
    /// calls do no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        self.check_lease(now);
        let seeks = self.go_back(now);
        match &mut self.role {
            Role::Host(host) => host.handle_timeout(&mut self.core, now),
            Role::Client(client) => client.handle_timeout(&mut self.core, now, seeks),
        }
        self.tend_mesh(now);
        self.drive_terms(now);
    }

    // ---- commands ----

    /// On a host in state-sync mode: these members are standbys, to which all of the state goes from
    /// the next tick on, and no others. Without effect elsewhere.
    pub fn stream_to(&mut self, members: &[MemberId]) {
        if let Role::Host(host) = &mut self.role {
            host.stream_to(&self.core, members);
        }
    }

    /// The newest tick whose state all standbys hold; `None` without standbys, and as long as one of
    /// them holds nothing.
    #[must_use]
    pub fn safe_tick(&self) -> Option<Tick> {
        match &self.role {
            Role::Host(host) => host.stream.as_ref()?.safe_tick(),
            Role::Client(_) => None,
        }
    }

    /// The newest tick whose state this node holds as a standby, and has compared with the host's
    /// hash.
    #[must_use]
    pub fn standby_held(&self) -> Option<Tick> {
        match &self.role {
            Role::Host(_) => None,
            Role::Client(client) => client.standby.as_ref()?.held(),
        }
    }

    /// Counters of a standby, or of a host that has some.
    #[must_use]
    pub fn standby_statistics(&self) -> Option<StandbyStatistics> {
        match &self.role {
            Role::Host(host) => Some(host.stream.as_ref()?.statistics()),
            Role::Client(client) => Some(client.standby.as_ref()?.statistics()),
        }
    }

    /// Sends a message of the game: a client to the host, a host to the member `to`.
    ///
    /// # Errors
    /// If there is no link to `to`, or it does not take the message.
    pub fn send_message(
        &mut self,
        to: MemberId,
        channel: Channel,
        bytes: &[u8],
    ) -> Result<(), MessageError> {
        let peer = match &mut self.role {
            Role::Host(host) => {
                let mut guests = host.guests.values_mut();
                guests
                    .find(|guest| guest.peer.member == to)
                    .map(|guest| &mut guest.peer)
            }
            Role::Client(client) => (to == client.host).then_some(&mut client.peer),
        };
        peer.ok_or(MessageError::NoLink(to))?
            .messages
            .send(channel, bytes)?;
        Ok(())
    }

    /// Says how far behind this node's inputs its player sees others, in state-sync mode: the tick
    /// on which an input sampled now will act, minus the tick at which others are shown. The host
    /// answers queries of this player for what it saw. Without effect on a host.
    pub fn show_behind(&mut self, now: Time, behind_ticks: u32) {
        if let Role::Client(client) = &mut self.role {
            client.show(now, behind_ticks);
        }
    }

    /// Starts a session that waits for it; without effect on a client.
    pub fn start(&mut self) {
        if let Role::Host(host) = &mut self.role {
            host.start();
        }
    }

    /// Sets the last tick of a session that this node hosts: `tick`, or the newest one that some
    /// node may have run already. Without effect on a client.
    pub fn end_at(&mut self, tick: Tick) {
        if let Role::Host(host) = &mut self.role {
            host.end_at(&mut self.core, tick);
        }
    }

    /// Leaves the session, with a goodbye. Where members elect who hosts, a host hands over first
    /// if somebody can take over; otherwise, and elsewhere, the session ends with its host.
    pub fn leave(&mut self) {
        if !self.hands_over_to_leave() {
            self.leave_now();
        }
    }

    fn leave_now(&mut self) {
        match &mut self.role {
            Role::Host(host) => host.leave(&mut self.core),
            Role::Client(client) => client.leave(&mut self.core),
        }
    }

    /// Takes the session up again over `path`, with the same slot where the host kept it. Without
    /// effect on a host.
    pub fn rejoin(&mut self, now: Time, path: Path) {
        if let Role::Client(client) = &mut self.role {
            client.rejoin(&self.core, now, path);
        }
    }

    // ---- what comes out ----

    /// The next request. Obey it before the next call.
    pub fn poll_request(&mut self) -> Option<Request<'_>> {
        let own = self.own_slot();
        // What need not be written back needs no request.
        while let (Some(&Todo::Overwrite(tick)), Role::Client(client)) =
            (self.core.todo.front(), &mut self.role)
            && client.look_back(tick).is_none()
        {
            self.core.todo.pop_front();
        }
        // An input that was asked for before the role changed, or the session ended, is not wanted.
        while let Some(&Todo::Sample(tick)) = self.core.todo.front()
            && (self.core.awaited != Some(tick) || own.is_none())
        {
            self.core.todo.pop_front();
        }
        Some(match self.core.todo.pop_front()? {
            Todo::PublishDecided(tick, slot) => Request::PublishDecided { tick, slot },
            Todo::Overwrite(tick) => match &mut self.role {
                Role::Client(client) => Request::Overwrite(client.look_back(tick)?),
                Role::Host(_) => return None,
            },
            Todo::Claim(tick) => match &mut self.role {
                Role::Host(host) => {
                    if let Some(stream) = &mut host.stream {
                        stream.note_claim();
                    }
                    let (slot, id, patch) = host.next_claim(tick)?;
                    Request::Claim { slot, id, patch }
                }
                Role::Client(_) => return None,
            },
            Todo::Begin => Request::Begin(&self.core.info),
            Todo::Sample(tick) => Request::Sample { tick },
            Todo::Step(tick, kind) => Request::Step {
                frame: self.core.frame(tick, own),
                kind,
            },
            Todo::Capture(tick) => Request::Capture { tick },
            Todo::Restore(tick) => Request::Restore { tick },
            Todo::Hash(tick) => Request::Hash { tick },
            Todo::Export(tick, purpose) => {
                self.exporting = Some(purpose);
                Request::Export { tick }
            }
            Todo::Publish(tick) => Request::Publish { tick },
            Todo::Authority(tick) => match &self.role {
                Role::Host(host) => Request::Authority {
                    tick,
                    needs_state: host.stream.as_ref()?.needs_state(),
                },
                // A host that became a client stands by with what it ran.
                Role::Client(_) => Request::Authority {
                    tick,
                    needs_state: true,
                },
            },
            Todo::Promote(tick, term) => {
                let ticks = match &self.role {
                    Role::Host(host) => host.rewind_ticks_max(),
                    Role::Client(_) => 0,
                };
                let held = self.promoted.as_ref();
                Request::Promote {
                    tick,
                    term,
                    state: held.and_then(|standby| standby.state_at(tick)),
                    past: held.map_or_else(Vec::new, |standby| standby.past(tick, ticks)),
                }
            }
            Todo::StandBy => match &mut self.role {
                Role::Client(client) => client.standby.as_mut()?.request()?,
                Role::Host(_) => return None,
            },
            Todo::PublishOwned(tick, slot) => Request::PublishOwned { tick, slot },
            Todo::Seen(slot, behind_ticks) => {
                if let Role::Host(host) = &mut self.role
                    && let Some(stream) = &mut host.stream
                {
                    stream.note_seen(slot, behind_ticks);
                }
                Request::Seen { slot, behind_ticks }
            }
            Todo::Patch => match &self.role {
                Role::Client(client) => Request::Patch(client.patch()?),
                Role::Host(_) => return None,
            },
            Todo::Import => {
                let bytes = match &self.role {
                    Role::Host(host) => host.doctor.cure.as_deref(),
                    Role::Client(client) => client.state.as_ref().map(|(_, bytes)| &**bytes),
                };
                Request::Import {
                    bytes: bytes.unwrap_or_default(),
                }
            }
        })
    }

    /// The next input frame that is final and has run, each once, in order; for a recorder. Where
    /// members elect who hosts, only once another host would not order it anew: as soon as all
    /// standbys hold it.
    pub fn poll_confirmed(&mut self) -> Option<&InputFrame> {
        let own = self.own_slot();
        let last = self.core.last_tick;
        let is_done = last.is_some_and(|last| self.core.timeline.settled() >= last);
        let terms = self.terms().filter(|terms| !terms.is_over() && !is_done);
        let safe = |terms: &crate::migration::Terms| {
            terms.safe_tick().min(hosting::stands(&self.core, terms))
        };
        let limit = terms.map_or(Tick::MAX, safe);
        self.core.confirmed_frame(own, limit)
    }

    /// Writes the next datagram into `out` (which is emptied first) and says where it goes.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Path> {
        out.clear();
        if let Some((path, bytes)) = self.parting.pop_front() {
            out.extend_from_slice(&bytes);
            return Some(path);
        }
        self.check_lease(now);
        let path = match &mut self.role {
            Role::Host(host) => host.poll_transmit(&mut self.core, now, out),
            Role::Client(client) => client.poll_transmit(&mut self.core, now, out),
        };
        if path.is_some() {
            return path;
        }
        let path = self
            .meshes()
            .find_map(|mesh| mesh.poll_transmit(now, out))?;
        self.core.statistics.datagrams_sent += 1;
        self.core.statistics.bytes_sent += out.len() as u64;
        Some(path)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Role::Client(client) = &mut self.role {
            client.poll_report(&mut self.core);
        }
        self.core.events.pop_front()
    }

    /// The next path that the link should close.
    pub fn poll_close(&mut self) -> Option<Path> {
        let path = match &mut self.role {
            Role::Host(host) => host.poll_close(),
            Role::Client(client) => client.poll_close(),
        };
        let now = self.core.transmitted_at;
        for mesh in self.meshes() {
            if let Some(path) = path {
                mesh.leave_path(now, path);
            } else if let Some(path) = mesh.poll_close() {
                return Some(path);
            }
        }
        path
    }

    /// When to call [`Node::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let role = match &self.role {
            Role::Host(host) => host.poll_timeout(&self.core),
            Role::Client(client) => client.poll_timeout(&self.core),
        };
        let mesh = self.mesh.as_ref().map(|mesh| mesh.poll_timeout());
        let mesh = mesh.map_or(role, |mesh| mesh.min(role));
        let former = self.former.as_ref();
        let former = former.map_or(Time::FAR, |former| former.poll_timeout());
        mesh.min(former).min(self.terms_due())
    }

    fn own_slot(&self) -> Option<Slot> {
        match &self.role {
            Role::Host(host) => host.own_slot(),
            Role::Client(client) => client.own_slot(),
        }
    }
}
