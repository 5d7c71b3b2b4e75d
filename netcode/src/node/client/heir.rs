//! Becoming the host, and being a client again after that.

use std::collections::BTreeMap;

use super::join::UNCONFIRMED_TICKS_MAX;
use super::switch::SAMPLED_TICKS;
use super::{Client, Phase, lead_limits};
use crate::id::{Path, Slot};
use crate::limits::PREDICTION_TICKS_MAX;
use crate::lockstep::{DelayControl, Timeline};
use crate::node::core::Core;
use crate::node::host::Host;
use crate::node::takeover::{StepDown, TakeOverError};
use crate::session::config::{
    DesyncPolicy, Gate, HostConfig, InputDelay, JoinConfig, LatePolicy, MigrationConfig, Mode,
    ResumeToken, Role, Start, StateSyncConfig,
};
use crate::session::control::Settings;
use crate::tick::Tick;
use crate::time::Time;

/// What a client leaves to the host that it becomes.
#[derive(Debug)]
pub(in crate::node) struct Heir {
    pub(in crate::node) config: HostConfig,
    /// With what it would join again.
    pub(in crate::node) joined: JoinConfig,
    pub(in crate::node) slot: Option<Slot>,
    /// The first tick on which its inputs act, if they do.
    pub(in crate::node) active_from: Option<Tick>,
    pub(in crate::node) delay: DelayControl,
    pub(in crate::node) catch_up_ticks: u32,
    /// Microseconds by which its ticks ran before the inputs of the others were there.
    pub(in crate::node) ahead_us: u64,
    /// The round trip to the host before, in microseconds; 0 if it is not known.
    pub(in crate::node) trip_us: u64,
    /// What others ask of it, by path.
    pub(in crate::node) returns: BTreeMap<Path, Vec<u8>>,
}

/// What a host leaves to the client that it becomes.
#[derive(Debug)]
pub(in crate::node) struct Retired {
    pub(in crate::node) config: HostConfig,
    pub(in crate::node) joined: Option<JoinConfig>,
    pub(in crate::node) slot: Option<Slot>,
    pub(in crate::node) active_from: Option<Tick>,
    pub(in crate::node) delay: DelayControl,
    pub(in crate::node) is_running: bool,
}

impl Client {
    /// Whether this node could host, or why not.
    pub(in crate::node) fn may_host(&self, core: &Core) -> Result<(), TakeOverError> {
        if self.settings.is_none() || self.phase == Phase::Over {
            return Err(TakeOverError::NotAllowed);
        }
        if self.follower.is_some() {
            let holds = self.standby_position() > Tick::ZERO;
            return holds.then_some(()).ok_or(TakeOverError::NoState);
        }
        // What ran on guesses must be there to run again.
        let ahead = core.timeline.simulated().since(core.timeline.settled());
        let is_there = ahead == 0 || ahead < core.info.images;
        let runs = self.running || core.final_tick() == Tick::ZERO;
        if self.needs_state || self.state.is_some() || !is_there || !runs {
            return Err(TakeOverError::NoState);
        }
        Ok(())
    }

    /// The newest tick that this node holds as a standby; 0 without one.
    pub(in crate::node) fn standby_position(&self) -> Tick {
        let held = self.standby.as_ref().and_then(|standby| standby.held());
        held.unwrap_or_default()
    }

    /// Whether its standby knows ticks that have not run yet.
    pub(in crate::node) fn has_to_run(&self) -> bool {
        let standby = self.standby.as_ref();
        standby.is_some_and(|standby| standby.has_to_run())
    }

    /// What it took from the host is over: this node's standby becomes the state of the session, as
    /// it was at `base`.
    pub(in crate::node) fn leave_following(
        &mut self,
        core: &mut Core,
        base: Tick,
    ) -> Result<(), TakeOverError> {
        let standby = self.standby.as_mut().ok_or(TakeOverError::NoState)?;
        let frames = standby.newest_frames();
        if frames.is_empty() {
            return Err(TakeOverError::NoState);
        }
        let acted = standby.take_acted(&frames);
        let follower = self.follower.take();
        let shown = follower.as_ref().and_then(|follower| follower.base());
        self.snapshot_ticks = follower.map_or(0, |follower| follower.snapshot_ticks);
        self.followed_ahead = Some(self.ahead(core.timeline.prediction()));
        core.todo.clear();
        core.follows = false;
        core.awaited = None;
        // A host keeps no images: nothing runs again there.
        (core.info.images, core.info.desync_interval) = (0, 0);
        core.timeline = Timeline::new(core.info.slots, core.info.input_bytes, 0, base);
        core.known = acted;
        core.jump(base);
        core.skip_reports(base);
        self.settle_accounts(core, shown.unwrap_or_default(), base);
        self.running = true;
        self.needs_state = false;
        self.state = None;
        self.receiver = None;
        Ok(())
    }

    /// What the host needs that this client becomes.
    pub(in crate::node) fn bequeath(&mut self, core: &mut Core) -> Heir {
        self.settle_inputs(core);
        let settings = self.settings.unwrap_or(Settings {
            host: self.host.0,
            late_policy: 0,
            limit_us: 2_000_000,
            resume_us: self.config.resume_us,
            silence_us: self.config.silence_us,
            spectator_delay_ticks: 0,
            spectators: 0,
            heal_host: false,
            players: 0,
            elects: false,
            budget_bytes_per_second: 0,
            rewind_ticks_max: 0,
        });
        let ahead = self.ahead(core.timeline.prediction());
        let ahead = u64::from(self.followed_ahead.unwrap_or(ahead));
        Heir {
            config: self.host_config(core, settings),
            joined: self.config.clone(),
            slot: self.peer.slot,
            active_from: self.active_from,
            delay: self.delay.clone(),
            catch_up_ticks: self.config.catch_up_ticks.max(1),
            ahead_us: ahead * core.rate.tick_us(),
            trip_us: self.peer.rtt.smoothed_us().unwrap_or(0),
            returns: core::mem::take(&mut self.returns),
        }
    }

    /// How the host tells the state, as far as this node knows.
    pub(super) fn state_sync_config(&self) -> StateSyncConfig {
        let usual = StateSyncConfig::default();
        let follower = self.follower.as_ref().map(|it| it.snapshot_ticks);
        let told = self.settings.filter(|it| it.budget_bytes_per_second > 0);
        StateSyncConfig {
            snapshot_ticks: match follower.unwrap_or(self.snapshot_ticks) {
                0 => usual.snapshot_ticks,
                ticks => ticks,
            },
            budget_bytes_per_second: told.map_or(usual.budget_bytes_per_second, |it| {
                it.budget_bytes_per_second
            }),
            rewind_ticks_max: told.map_or(usual.rewind_ticks_max, |it| it.rewind_ticks_max),
        }
    }

    fn host_config(&self, core: &Core, settings: Settings) -> HostConfig {
        HostConfig {
            game: self.config.game.clone(),
            name: self.config.name.clone(),
            plays: self.peer.slot.is_some(),
            slots: core.info.slots,
            seed: core.info.seed,
            gate: if self.waits {
                Gate::Wait {
                    limit_us: settings.limit_us,
                }
            } else {
                Gate::Paced
            },
            late_policy: if settings.late_policy == 0 {
                LatePolicy::Repeat
            } else {
                LatePolicy::Neutral
            },
            input_delay: self.config.input_delay,
            prediction_ticks: core.timeline.prediction(),
            start: match settings.players {
                0 => Start::Manual,
                players => Start::Players(players),
            },
            last_tick: core.last_tick,
            desync: DesyncPolicy {
                interval_ticks: core.info.desync_interval,
                images: core.info.images,
                heal: self.heal,
                heal_host: settings.heal_host,
            },
            state_sync: self.state_sync_config(),
            resume_us: settings.resume_us,
            silence_us: settings.silence_us,
            spectator_delay_ticks: settings.spectator_delay_ticks,
            spectators: settings.spectators,
            migration: MigrationConfig {
                allows: true,
                elects: settings.elects,
            },
            hosting: self.config.hosting.clone(),
            secret: self.config.secret,
        }
    }

    /// The client that a host becomes. It asks the new host as soon as it is told to.
    pub(in crate::node) fn after_hosting(
        host: &mut Host,
        core: &mut Core,
        now: Time,
        step_down: &StepDown,
    ) -> Self {
        let retired = host.retire();
        let settings = host.settings(core);
        let config = retired.joined.unwrap_or_else(|| {
            let usual = JoinConfig::new(retired.config.game.clone(), &retired.config.name);
            let (prediction_ticks, input_delay) =
                match (retired.config.game.mode, retired.config.gate) {
                    (Mode::StateSync, _) => (usual.prediction_ticks, usual.input_delay),
                    (Mode::Lockstep, Gate::Wait { .. }) => {
                        (retired.config.prediction_ticks, retired.config.input_delay)
                    }
                    (Mode::Lockstep, Gate::Paced) => (0, retired.config.input_delay),
                };
            JoinConfig {
                role: if retired.slot.is_some() {
                    Role::Player
                } else {
                    Role::Spectator
                },
                input_delay,
                prediction_ticks: prediction_ticks.min(PREDICTION_TICKS_MAX),
                resume_us: retired.config.resume_us.max(retired.config.silence_us),
                silence_us: retired.config.silence_us,
                hosting: retired.config.hosting,
                secret: retired.config.secret,
                ..usual
            }
        });
        for (path, guest) in &host.guests {
            core.note_strays(now, *path, guest.peer.stray_tags());
        }
        let (mut client, _placeholder) = Self::new(config, step_down.warm.path, now);
        client.phase = Phase::Inside;
        client.peer.slot = retired.slot;
        client.waits = retired.config.gate != Gate::Paced;
        client.heal = retired.config.desync.heal;
        client.running = retired.is_running;
        client.active_from = retired.active_from;
        client.host = core.info.member;
        client.settings = Some(settings);
        // It was a member, and proves that by the path.
        client.resume = Some(ResumeToken(1));
        client.frames_upto = core.final_tick();
        client.checked_own = core.final_tick();
        if client.waits {
            core.timeline.keep_guesses(UNCONFIRMED_TICKS_MAX);
            client.delay = retired.delay;
        } else if let Some(audience) = host.audience.take() {
            client.leave_reign(core, *audience, step_down.warm.rtt_us);
        } else {
            // As a host it sampled for the very next tick. From now on inputs have a way to go.
            let limits: InputDelay = lead_limits(&client.config);
            client.delay = DelayControl::new(limits);
            let rtt_us = step_down.warm.rtt_us.unwrap_or(100_000);
            client.delay.guess(core.rate.ticks_in_us_ceil(rtt_us) + 2);
            let upto = core.clock.tick().next().plus(client.delay.ticks());
            client.samples_all_upto = upto.plus(SAMPLED_TICKS);
        }
        core.awaited = None;
        core.stalled_since = None;
        client
    }
}
