//! Desync diagnosis on the host: who differs, since when, in what; and what to do about it.
//!
//! Clients report the hash of every n-th tick. Where one differs, the host asks for the hashes in
//! between, finds the first tick that differs, asks for the state at that tick and compares it
//! with its own, field by field. One case at a time; a member has at most one in five seconds.

use std::collections::{BTreeMap, VecDeque};

use crate::id::{MemberId, Path};
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::node::api::{DesyncReport, Event};
use crate::node::core::{Core, ExportFor, Todo};
use crate::node::desync::fold;
use crate::node::guest::Guest;
use crate::session::bulk::BulkReceiver;
use crate::session::control::{Control, HASHES_MAX};
use crate::session::statistics::DropReason;
use crate::state::{Schema, Snapshot};
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::{HashSection, kind};

/// Microseconds between two cases of one member.
const PAUSE_US: u64 = 5_000_000;
/// Microseconds after which a case is reported with what is known.
const PATIENCE_US: u64 = 5_000_000;
/// Differences in a report.
const DIFFERENCES_MAX: usize = 32;
/// Bytes of one line that is told to the diverged member.
const LINE_BYTES_MAX: usize = 200;

/// What the host knows of a member's hashes.
#[derive(Clone, Copy, Debug, Default)]
struct Chart {
    agreed: Tick,
    newest: Option<HashSection>,
    quiet_until: Time,
}

/// A difference that is being looked into.
#[derive(Debug)]
struct Case {
    path: Path,
    member: MemberId,
    opened_at: Option<Time>,
    after: Tick,
    /// First tick that differs, as far as known.
    tick: Tick,
    own: Option<Vec<u8>>,
    receiver: Option<BulkReceiver>,
    theirs: Option<Vec<u8>>,
    asked: bool,
}

/// Looks into differences.
#[derive(Debug, Default)]
pub(super) struct Doctor {
    charts: BTreeMap<Path, Chart>,
    case: Option<Case>,
    lines: VecDeque<(Path, String)>,
    heal: Vec<Path>,
    acks: VecDeque<(Path, BulkReceiver)>,
    /// The state of a majority member, for a host that diverged.
    pub(super) cure: Option<Vec<u8>>,
}

impl Doctor {
    /// Takes the hash that a member reports, and compares it if this host has its own.
    pub(super) fn compare(
        &mut self,
        core: &mut Core,
        guests: &mut BTreeMap<Path, Guest>,
        path: Path,
        hash: HashSection,
    ) {
        if core.hashes.is_compared(hash.tick) {
            self.charts.entry(path).or_default().newest = Some(hash);
            self.check(core, guests, path);
        }
    }

    /// Compares what waits for the host's own hash of `tick`.
    pub(super) fn own_hash(
        &mut self,
        core: &mut Core,
        guests: &mut BTreeMap<Path, Guest>,
        tick: Tick,
    ) {
        let waiting: Vec<Path> = self
            .charts
            .iter()
            .filter(|(_, chart)| chart.newest.is_some_and(|hash| hash.tick == tick))
            .map(|(path, _)| *path)
            .collect();
        for path in waiting {
            self.check(core, guests, path);
        }
    }

    fn check(&mut self, core: &mut Core, guests: &mut BTreeMap<Path, Guest>, path: Path) {
        let Some(chart) = self.charts.get_mut(&path) else {
            return;
        };
        let Some(theirs) = chart.newest else { return };
        let Some(own) = core.hashes.at(theirs.tick) else {
            return;
        };
        if fold(theirs.tick, own) == theirs {
            chart.agreed = theirs.tick;
            return;
        }
        let Some(guest) = guests.get_mut(&path) else {
            return;
        };
        // What was sent before a cure arrived differs still.
        if self.case.is_some() || guest.transfer.is_some() || guest.wants_state {
            return;
        }
        if guest.peer.heard_at < chart.quiet_until {
            return;
        }
        chart.quiet_until = guest.peer.heard_at.plus_micros(PAUSE_US);
        core.statistics.desyncs += 1;
        let span = u32::try_from(HASHES_MAX)
            .unwrap_or(u32::MAX)
            .min(core.info.images);
        let upto = theirs.tick;
        let after = chart.agreed.max(upto.minus(span));
        guest.tell(&Control::Hashes {
            after: after.number(),
            upto: upto.number(),
            hashes: Vec::new(),
        });
        for number in after.number() + 1..=upto.number() {
            let tick = Tick::new(number);
            if core.hashes.at(tick).is_none() {
                core.todo.push_back(Todo::Hash(tick));
            }
        }
        self.case = Some(Case {
            path,
            member: guest.peer.member,
            opened_at: None,
            after,
            tick: upto,
            own: None,
            receiver: None,
            theirs: None,
            asked: false,
        });
    }

    /// Takes the hashes between the last tick that agreed and the first compared one that did not.
    pub(super) fn take_hashes(
        &mut self,
        core: &mut Core,
        guests: &mut BTreeMap<Path, Guest>,
        path: Path,
        after: u32,
        upto: u32,
        hashes: &[u32],
    ) {
        let Some(case) = &mut self.case else { return };
        if case.path != path || case.asked || case.after.number() != after {
            return;
        }
        let pairs = (after.saturating_add(1)..=upto).zip(hashes);
        let first = pairs
            .filter(|&(_, &theirs)| theirs != 0)
            .find(|&(number, &theirs)| {
                let tick = Tick::new(number);
                core.hashes
                    .at(tick)
                    .is_some_and(|own| fold(tick, own).hash != theirs)
            })
            .map(|(number, _)| Tick::new(number));
        case.tick = first.unwrap_or(case.tick);
        case.asked = true;
        let (tick, member) = (case.tick, case.member);
        core.todo.push_back(Todo::Export(tick, ExportFor::Report));
        // A member that is right needs no other state.
        let heal = self.minority(core, path, member) == member;
        if let Some(guest) = guests.get_mut(&path) {
            guest.tell(&Control::Diverged {
                tick: tick.number(),
                heal,
            });
        }
    }

    /// The host's own state for the report.
    pub(super) fn own_state(&mut self, tick: Tick, bytes: Option<Vec<u8>>) {
        if let Some(case) = &mut self.case
            && case.tick == tick
        {
            case.own = Some(bytes.unwrap_or_default());
        }
    }

    /// A member announces its state.
    pub(super) fn expect_report(
        &mut self,
        path: Path,
        id: u16,
        tick: Tick,
        bytes: u32,
        digest: u64,
    ) -> Result<(), DropReason> {
        let case = self
            .case
            .as_mut()
            .filter(|case| case.path == path && case.tick == tick);
        let case = case.ok_or(DropReason::Unexpected)?;
        if case.receiver.is_none() {
            let receiver = BulkReceiver::new(id, u64::from(bytes), digest, SNAPSHOT_BYTES_MAX)
                .map_err(|_too_large| DropReason::BadSection)?;
            case.receiver = Some(receiver);
        }
        Ok(())
    }

    /// A chunk of a member's state.
    pub(super) fn handle_chunk(
        &mut self,
        now: Time,
        path: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        if let Some(case) = &mut self.case
            && case.path == path
            && let Some(receiver) = &mut case.receiver
        {
            receiver
                .handle_chunk(now, body)
                .map_err(|_error| DropReason::Malformed)?;
            if receiver.is_complete() && case.theirs.is_none() {
                case.theirs = Some(receiver.finish().unwrap_or_default());
            }
            return Ok(());
        }
        let late = self.acks.iter_mut().find(|(of, _)| *of == path);
        let (_, receiver) = late.ok_or(DropReason::Unexpected)?;
        receiver
            .handle_chunk(now, body)
            .map_err(|_error| DropReason::Malformed)?;
        Ok(())
    }

    /// An ack of chunks that is due.
    pub(super) fn poll_ack(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Path> {
        let open = self.case.iter_mut().filter_map(|case| {
            let path = case.path;
            case.receiver.as_mut().map(|receiver| (path, receiver))
        });
        let done = self
            .acks
            .iter_mut()
            .map(|(path, receiver)| (*path, receiver));
        for (path, receiver) in open.chain(done) {
            out.push(kind::BULK_ACK);
            if receiver.write_ack(now, out) {
                return Some(path);
            }
            out.clear();
        }
        None
    }

    /// Closes the case when both states are there, or when patience ends.
    pub(super) fn handle_timeout(&mut self, core: &mut Core, schema: &Schema, now: Time) {
        let Some(case) = &mut self.case else { return };
        let opened_at = *case.opened_at.get_or_insert(now);
        let is_complete = case.own.is_some() && case.theirs.is_some();
        if !is_complete && now.micros_since(opened_at) < PATIENCE_US {
            return;
        }
        let Some(mut case) = self.case.take() else {
            return;
        };
        if let Some(receiver) = case.receiver.take() {
            self.acks.push_back((case.path, receiver));
            if self.acks.len() > 8 {
                self.acks.pop_front();
            }
        }
        let own = case
            .own
            .as_deref()
            .and_then(|bytes| Snapshot::decode(bytes, schema).ok());
        // A state of another tick says nothing, and as a cure would send this host there.
        let theirs = case
            .theirs
            .as_deref()
            .and_then(|bytes| Snapshot::decode(bytes, schema).ok())
            .filter(|theirs| theirs.tick == case.tick);
        let differences: Vec<String> = match (&own, &theirs) {
            (Some(own), Some(theirs)) => {
                let found = own.differences(theirs, schema, DIFFERENCES_MAX);
                found.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        };
        let member = self.minority(core, case.path, case.member);
        let heading = format!("states differ from tick {} on", case.tick);
        for line in core::iter::once(&heading).chain(&differences) {
            self.lines.push_back((case.path, shortened(line)));
        }
        core.report(Event::Desync(DesyncReport {
            tick: case.tick,
            member,
            differences,
        }));
        if member == core.info.member && theirs.is_some() {
            self.cure = case.theirs.take();
        } else {
            self.heal.push(case.path);
        }
    }

    /// Who differs from most: the host, if more members agree with the other state than with its.
    fn minority(&self, core: &Core, path: Path, member: MemberId) -> MemberId {
        let Some(theirs) = self.charts.get(&path).and_then(|chart| chart.newest) else {
            return member;
        };
        let at_that_tick: Vec<HashSection> = self
            .charts
            .values()
            .filter_map(|chart| chart.newest)
            .filter(|hash| hash.tick == theirs.tick)
            .collect();
        let with_them = at_that_tick.iter().filter(|&&hash| hash == theirs).count();
        let own = core
            .hashes
            .at(theirs.tick)
            .map(|own| fold(theirs.tick, own));
        let with_host = 1 + at_that_tick
            .iter()
            .filter(|&&hash| Some(hash) == own)
            .count();
        if with_them > with_host {
            core.info.member
        } else {
            member
        }
    }

    /// Lines for diverged members.
    pub(super) fn poll_line(&mut self) -> Option<(Path, String)> {
        self.lines.pop_front()
    }

    /// A member that shall get the state.
    pub(super) fn poll_heal(&mut self) -> Option<Path> {
        self.heal.pop()
    }

    /// The member on `path` is gone.
    pub(super) fn forget(&mut self, path: Path) {
        self.charts.remove(&path);
        self.acks.retain(|(of, _)| *of != path);
        if self.case.as_ref().is_some_and(|case| case.path == path) {
            self.case = None;
        }
    }
}

fn shortened(line: &str) -> String {
    let end = (0..=LINE_BYTES_MAX.min(line.len()))
        .rev()
        .find(|&end| line.is_char_boundary(end));
    line[..end.unwrap_or(0)].to_owned()
}
