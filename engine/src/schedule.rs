//! The tick's schedule: one thread, one order, no ambiguity.
//!
//! Two systems that touch the same data without being ordered are an error when the game is
//! built. Commands are applied between a system and those that are ordered after it. Commands of
//! systems that are not ordered do not conflict for the schedule; they are applied in the order
//! in which the schedule runs, which is the same in all builds of one game with the same pointer
//! width. A game that mixes 32-bit and 64-bit nodes orders its systems with commands.

use core::any::type_name;

use bevy_ecs::schedule::{
    IntoScheduleConfigs, LogLevel, Schedule, ScheduleBuildError, ScheduleBuildSettings,
    ScheduleBuildWarning, ScheduleLabel, SingleThreadedExecutor,
};
use bevy_ecs::system::ScheduleSystem;
use bevy_ecs::world::World;

use crate::game::GameError;

/// Label of the schedule that runs once per tick.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TickSchedule;

/// Label of the schedule that computes `Derived` kinds after a snapshot was taken over.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DeriveSchedule;

/// Systems that can be added to any number of schedules.
pub(crate) struct SystemSource {
    add: Box<dyn Fn(&mut Schedule) + Send + Sync>,
    /// A parameter that keeps memory outside of the state, where the types show one.
    forbidden: Option<&'static str>,
}

impl SystemSource {
    pub(crate) fn new<M, C, F>(systems: F) -> Self
    where
        C: IntoScheduleConfigs<ScheduleSystem, M>,
        F: Fn() -> C + Send + Sync + 'static,
    {
        // The marker holds the parameter types of plain functions. It is erased where `after` or
        // `chain` was called; there only the checker finds such parameters.
        let marker = type_name::<M>();
        Self {
            add: Box::new(move |schedule| {
                schedule.add_systems(systems());
            }),
            forbidden: FORBIDDEN
                .iter()
                .find(|(path, _)| marker.contains(path))
                .map(|&(_, name)| name),
        }
    }
}

/// Parameters and filters whose memory lies in the system: part of the type's path, its name.
const FORBIDDEN: [(&str, &str); 7] = [
    ("::system_param::Local<", "Local"),
    ("::RemovedComponents<", "RemovedComponents"),
    ("::filter::Changed<", "Changed"),
    ("::filter::Added<", "Added"),
    ("::MessageReader<", "MessageReader"),
    ("::PopulatedMessageReader<", "PopulatedMessageReader"),
    ("::MessageMutator<", "MessageMutator"),
];

/// Part of the type name of the resource behind message readers and writers.
const MESSAGES: &str = "::messages::Messages<";

/// A schedule of these systems that is ready to run in `world`.
///
/// # Errors
/// If systems conflict without being ordered, or keep memory outside of the state.
pub(crate) fn build(
    label: impl ScheduleLabel,
    sources: &[SystemSource],
    world: &mut World,
) -> Result<Schedule, GameError> {
    let mut schedule = Schedule::new(label);
    schedule.set_executor(SingleThreadedExecutor::new());
    schedule.set_build_settings(ScheduleBuildSettings {
        ambiguity_detection: LogLevel::Error,
        ..ScheduleBuildSettings::default()
    });
    for source in sources {
        if let Some(parameter) = source.forbidden {
            return Err(GameError::MemoryOutsideState { parameter });
        }
        (source.add)(&mut schedule);
    }
    if let Err(error) = schedule.initialize(world) {
        return Err(explain(&error, &schedule, world));
    }
    Ok(schedule)
}

/// Whether a system of `world` uses messages, whose cursors a restore cannot reach.
pub(crate) fn uses_messages(world: &World) -> bool {
    world
        .components()
        .iter_registered()
        .any(|(_id, component)| component.name().contains(MESSAGES))
}

/// Events or a past that a system of `world` uses without being among the `known` resources.
pub(crate) fn unregistered(world: &World, known: &[&str]) -> Option<String> {
    let mut resources = world.components().iter_registered();
    resources.find_map(|(_id, component)| {
        let name = component.name().to_string();
        let is_needed = REGISTERED.iter().any(|path| name.starts_with(path));
        (is_needed && !known.contains(&name.as_str())).then_some(name)
    })
}

/// Resources that systems may use only if the game has registered them.
const REGISTERED: [&str; 2] = ["phalanx::events::TickEvents<", "phalanx::rewind::History<"];

fn explain(error: &ScheduleBuildError, schedule: &Schedule, world: &World) -> GameError {
    if let ScheduleBuildError::Elevated(ScheduleBuildWarning::Ambiguity(ambiguity)) = error
        && let Some((first, second, data)) = ambiguity
            .0
            .to_string(schedule.graph(), world.components())
            .next()
    {
        return GameError::Ambiguous {
            first,
            second,
            data: data
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        };
    }
    GameError::Schedule(error.to_string(schedule.graph(), world))
}
