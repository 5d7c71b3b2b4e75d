//! Bevy's hierarchy as a part of the state.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::{Patch, PatchRows, Snapshot};
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Weight(u32);

#[derive(Resource, Networked, Clone, Copy, Debug, Default, PartialEq)]
struct Weighed(u64);

/// Links, unlinks, spawns or despawns at random.
fn shuffle(mut rng: ResMut<TickRng>, index: Res<NetIndex>, mut commands: NetCommands) {
    let entities: Vec<Entity> = index.iter().map(|(_id, entity)| entity).collect();
    let mut pick = |bound: usize| {
        let number = rng.below(u64::try_from(bound).unwrap());
        usize::try_from(number).unwrap()
    };
    if entities.len() < 12 || pick(8) == 0 {
        let weight = u32::try_from(pick(100)).unwrap();
        commands.spawn(Weight(weight));
        return;
    }
    let (place, what) = (pick(entities.len()), pick(12));
    // Parents are older than their children, so there is no ring.
    let parent = (place > 0).then(|| entities[pick(place)]);
    let mut commands = commands.commands();
    let mut entity = commands.entity(entities[place]);
    match (what, parent) {
        (0, _) => entity.despawn(),
        (1, _) => drop(entity.remove::<ChildOf>()),
        (2, _) => drop(entity.detach_all_children()),
        (_, Some(parent)) => drop(entity.insert(ChildOf(parent))),
        (_, None) => {}
    }
}

/// Depends on the order of children.
fn weigh(
    parents: Ordered<(&Children, &Weight)>,
    weights: Query<&Weight>,
    mut sum: ResMut<Weighed>,
) {
    for (children, own) in parents.iter() {
        for weight in children.iter().filter_map(|child| weights.get(child).ok()) {
            sum.0 = sum
                .0
                .wrapping_mul(31)
                .wrapping_add(u64::from(weight.0 + own.0));
        }
    }
}

fn drop<T>(_value: T) {}

fn game() -> Game {
    Game::builder("hierarchy")
        .component::<Weight>()
        .resource::<Weighed>()
        .hierarchy()
        .systems(|| (shuffle, weigh).chain())
        .setup(|world, _setup| {
            world.init_resource::<Weighed>();
            for weight in 0..12 {
                world.spawn_networked(Weight(weight));
            }
        })
        .build()
        .unwrap()
}

/// A tank with two turrets, the second with a gun; nothing happens to them.
fn tank() -> Game {
    Game::builder("tank")
        .component::<Weight>()
        .hierarchy()
        .setup(|world, _setup| {
            let tank = world.spawn_networked(Weight(1)).id();
            let turrets = [2, 3].map(|weight| {
                let turret = (Weight(weight), ChildOf(tank));
                world.spawn_networked(turret).id()
            });
            world.spawn_networked((Weight(4), ChildOf(turrets[1])));
        })
        .build()
        .unwrap()
}

const TANK: u64 = 1;
const TURRETS: [u64; 2] = [2, 3];
const GUN: u64 = 4;

fn step(simulation: &mut EcsSimulation) {
    let frame = InputFrame::empty(simulation.tick().next(), 2, 0);
    simulation.step(&frame, StepKind::First);
}

/// Every entity with its parent and its children.
fn links(simulation: &EcsSimulation) -> Vec<(u64, Option<u64>, Vec<u64>)> {
    let world = simulation.world();
    let id = |entity: Entity| world.get::<NetId>(entity).unwrap().bits();
    let entities = world.resource::<NetIndex>().iter();
    entities
        .map(|(own, entity)| {
            let parent = world.get::<ChildOf>(entity).map(|link| id(link.parent()));
            let children = world.get::<Children>(entity);
            let children =
                children.map_or_else(Vec::new, |children| children.iter().map(&id).collect());
            (own.bits(), parent, children)
        })
        .collect()
}

/// All of `snapshot` that clients see, of the entities in `view`.
fn whole(game: &Game, snapshot: &Snapshot, view: &[u64]) -> Patch {
    let mut patch = Patch {
        tick: snapshot.tick,
        is_whole: true,
        ..Patch::default()
    };
    for (rows, kind) in snapshot.kinds.iter().zip(game.schema().kinds()) {
        let mut seen = PatchRows::default();
        for (id, row) in rows.rows() {
            let is_seen = id.is_none() || view.contains(&id.bits());
            if kind.visibility == Visibility::Client && is_seen {
                seen.rows.push(id, |out| out.extend_from_slice(row));
            }
        }
        patch.kinds.push(seen);
    }
    patch
}

#[test]
fn the_hierarchy_is_the_same_after_a_rollback_and_on_another_node() {
    let game = game();
    for seed in 0..12 {
        let mut prng = Prng::new(seed);
        let mut simulation = game.simulation(seed, 2);
        let mut image = EcsImage::default();
        let mut linked = 0;
        for round in 0..40 {
            simulation.capture(&mut image);
            let ticks = prng.below(6);
            let mut past = Vec::new();
            for _ in 0..ticks {
                step(&mut simulation);
                past.push((simulation.state_hash(), links(&simulation)));
            }
            simulation.restore(&image);
            for (hash, links_then) in past {
                step(&mut simulation);
                assert_eq!(links(&simulation), links_then, "seed {seed}, round {round}");
                assert_eq!(simulation.state_hash(), hash, "seed {seed}, round {round}");
                linked += links_then
                    .iter()
                    .filter(|(_, parent, _)| parent.is_some())
                    .count();
            }
            let mut other = game.simulation(99, 2);
            other.import(&simulation.snapshot()).unwrap();
            assert_eq!(
                links(&other),
                links(&simulation),
                "seed {seed}, round {round}"
            );
            step(&mut other);
            step(&mut simulation);
            assert_eq!(
                other.state_hash(),
                simulation.state_hash(),
                "seed {seed}, round {round}"
            );
        }
        assert!(linked > 100, "seed {seed}: {linked}");
    }
}

#[test]
fn a_child_waits_for_its_parent_and_outlives_it_in_the_view() {
    let game = tank();
    let mut host = game.simulation(1, 2);
    step(&mut host);
    let mut snapshot = Snapshot::default();
    host.publish(&mut snapshot);
    let mut client = game.simulation(1, 2);
    client.set_side(Side::Predicting(Slot(0)));
    let all = [TANK, TURRETS[0], TURRETS[1], GUN];

    client
        .patch(&whole(&game, &snapshot, &[GUN, TURRETS[0]]))
        .unwrap();
    assert_eq!(
        links(&client),
        [(TURRETS[0], None, vec![]), (GUN, None, vec![])]
    );
    // A client's own ticks do not take what it waits for for gone.
    step(&mut client);
    client.patch(&whole(&game, &snapshot, &all)).unwrap();
    assert_eq!(links(&client), links(&host));
    assert_eq!(links(&client)[0], (TANK, None, TURRETS.to_vec()));

    // Its tank and a turret leave the view: the gun stays, and is linked again when they are back.
    let gone = Patch {
        is_whole: false,
        removed: [TANK, TURRETS[1]]
            .map(|id| NetId::from_bits(id).raw())
            .to_vec(),
        kinds: vec![PatchRows::default(); game.schema().kinds().len()],
        ..Patch::default()
    };
    client.patch(&gone).unwrap();
    assert_eq!(
        links(&client),
        [(TURRETS[0], None, vec![]), (GUN, None, vec![])]
    );
    step(&mut client);
    let mut back = whole(&game, &snapshot, &[TANK, TURRETS[1]]);
    back.is_whole = false;
    client.patch(&back).unwrap();
    assert_eq!(links(&client), links(&host));
}

#[test]
fn what_a_host_despawns_goes_with_its_children() {
    let game = tank();
    let mut host = game.simulation(1, 2);
    let tank = host
        .world()
        .resource::<NetIndex>()
        .get(NetId::from_bits(TANK))
        .unwrap();
    let drawn = host.world_mut().spawn(ChildOf(tank)).id();
    step(&mut host);
    let mut image = EcsImage::default();
    host.capture(&mut image);
    host.world_mut().despawn(tank);
    step(&mut host);
    assert_eq!(links(&host), []);
    assert!(
        host.world().get_entity(drawn).is_err(),
        "what is drawn on it, too"
    );
    host.restore(&image);
    assert_eq!(links(&host).len(), 4);
    assert_eq!(links(&host)[0], (TANK, None, TURRETS.to_vec()));
}

#[test]
fn rings_and_endless_chains_of_a_host_are_not_linked() {
    let game = tank();
    let mut host = game.simulation(1, 2);
    let mut snapshot = Snapshot::default();
    host.publish(&mut snapshot);
    let all = [TANK, TURRETS[0], TURRETS[1], GUN];
    let parent = game.schema().kind_index("phalanx.parent").unwrap();
    let mut client = game.simulation(1, 2);
    for ring in [
        &[(TANK, TANK)][..],
        &[(TANK, GUN)],
        &[(TANK, TURRETS[0]), (TURRETS[0], TANK)],
    ] {
        let mut patch = whole(&game, &snapshot, &all);
        let rows = &mut patch.kinds[parent].rows;
        let mut links_of: Vec<(u64, u64)> = vec![(2, 1), (3, 1), (4, 3)];
        links_of.retain(|(child, _)| !ring.iter().any(|(other, _)| other == child));
        links_of.extend(ring);
        links_of.sort_unstable();
        *rows = Default::default();
        for (child, parent) in links_of {
            rows.push(NetId::from_bits(child).raw(), |out| {
                out.extend_from_slice(&parent.to_le_bytes());
            });
        }
        client.patch(&patch).unwrap();
        for (child, _) in ring {
            let linked = links(&client).into_iter().find(|link| link.0 == *child);
            assert_eq!(linked.unwrap().1, None, "{ring:?}");
        }
        client.patch(&whole(&game, &snapshot, &all)).unwrap();
        assert_eq!(links(&client), links(&host));
    }

    // From the bottom up, one link at a time.
    let length = 300_u64;
    for first in (1..length).rev() {
        let mut patch = whole(&game, &snapshot, &[]);
        patch.is_whole = false;
        let entity = game.schema().kind_index("phalanx.entity").unwrap();
        let id = |number: u64| NetId::from_bits(10 + number).raw();
        if first == length - 1 {
            (1..=length).for_each(|number| patch.kinds[entity].rows.push(id(number), |_row| {}));
        }
        patch.kinds[parent].rows.push(id(first + 1), |out| {
            out.extend_from_slice(&(10 + first).to_le_bytes());
        });
        client.patch(&patch).unwrap();
    }
    let links = links(&client);
    let linked = links.iter().filter(|link| link.0 > 10 && link.1.is_some());
    assert_eq!(linked.count(), 64);
    client.patch(&whole(&game, &snapshot, &all)).unwrap();
}
