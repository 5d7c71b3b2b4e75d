//! The tick's schedule: one order, the same everywhere.
//!
//! Two systems that touch the same data without being ordered are an error when the game is
//! built. What remains unordered does not share data, except for one thing: commands, which are
//! applied in the order of the systems. So the order is made total, by registration where nothing
//! else decides, and does not depend on how a hash map iterates on this platform.

use std::collections::{BTreeMap, BTreeSet};

use bevy_ecs::schedule::graph::{DiGraph, Direction};
use bevy_ecs::schedule::{
    FlattenedDependencies, IntoScheduleConfigs, LogLevel, NodeId, Schedule, ScheduleBuildError,
    ScheduleBuildPass, ScheduleBuildSettings, ScheduleBuildWarning, ScheduleGraph, ScheduleLabel,
    SingleThreadedExecutor, SystemKey, SystemSetKey,
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

/// Adds the same systems to any number of schedules.
pub(crate) type SystemSource = Box<dyn Fn(&mut Schedule) + Send + Sync>;

/// The source that adds what `systems` returns.
pub(crate) fn source<M, C, F>(systems: F) -> SystemSource
where
    C: IntoScheduleConfigs<ScheduleSystem, M>,
    F: Fn() -> C + Send + Sync + 'static,
{
    Box::new(move |schedule| {
        schedule.add_systems(systems());
    })
}

/// A schedule of these systems that is ready to run in `world`.
pub(crate) fn build(
    label: impl ScheduleLabel,
    sources: &[SystemSource],
    world: &mut World,
) -> Schedule {
    let mut schedule = unordered(label, sources);
    schedule.add_build_pass(TotalOrder);
    schedule
        .initialize(world)
        .unwrap_or_else(|error| unreachable!("the same systems passed `check`: {error}"));
    schedule
}

/// Whether these systems make a schedule without ambiguity.
pub(crate) fn check(
    label: impl ScheduleLabel,
    sources: &[SystemSource],
    world: &mut World,
) -> Result<(), GameError> {
    let mut schedule = unordered(label, sources);
    if let Err(error) = schedule.initialize(world) {
        return Err(explain(&error, &schedule, world));
    }
    let systems = schedule
        .systems_with_access()
        .expect("`initialize` returned without an error");
    for (_, system) in systems {
        let name = system.system.name();
        for component in system.access.iter_used_components() {
            let resource = world.components().get_name(component);
            if resource.is_some_and(|resource| resource.contains(MESSAGES)) {
                return Err(GameError::MessagesInTick {
                    system: name.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Part of the type name of the storage behind message readers and writers.
const MESSAGES: &str = "::messages::Messages<";

fn unordered(label: impl ScheduleLabel, sources: &[SystemSource]) -> Schedule {
    let mut schedule = Schedule::new(label);
    schedule.set_executor(SingleThreadedExecutor::new());
    schedule.set_build_settings(ScheduleBuildSettings {
        ambiguity_detection: LogLevel::Error,
        ..ScheduleBuildSettings::default()
    });
    for source in sources {
        source(&mut schedule);
    }
    schedule
}

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
            data: data.iter().map(ToString::to_string).collect(),
        };
    }
    GameError::Schedule(error.to_string(schedule.graph(), world))
}

/// Orders all systems, by registration where nothing else decides.
#[derive(Debug)]
struct TotalOrder;

impl ScheduleBuildPass for TotalOrder {
    type EdgeOptions = ();

    fn add_dependency(&mut self, _from: NodeId, _to: NodeId, _options: Option<&()>) {}

    fn collapse_set(
        &mut self,
        _set: SystemSetKey,
        _systems: &indexmap::IndexSet<SystemKey, bevy_platform::hash::FixedHasher>,
        _flattening: &DiGraph<NodeId>,
    ) -> impl Iterator<Item = (NodeId, NodeId)> {
        core::iter::empty()
    }

    fn build(
        &mut self,
        _world: &mut World,
        _graph: &mut ScheduleGraph,
        mut flat: FlattenedDependencies<'_>,
    ) -> Result<(), ScheduleBuildError> {
        Ok(())
    }
}
