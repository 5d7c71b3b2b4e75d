//! What a host publishes, and how a client takes it over.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "state/pieces.rs"]
mod pieces;

use bevy_ecs::entity_disabling::Disabled;
use phalanx::netcode::id;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::{ImportError, KindRows, Patch, PatchRows, Snapshot};
use phalanx::prelude::*;
use pieces::{Armour, Burning, Frozen, Path, Score, Shield};

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
#[require(Threat)]
struct Position(Vec2);

#[derive(Component, Networked, Clone, Copy, Debug, Default, PartialEq)]
#[networked(visibility = HostOnly)]
struct Plan(u32);

#[derive(Component, Networked, Clone, Copy, Debug, Default, PartialEq)]
#[networked(visibility = Derived)]
struct Threat(f32);

#[derive(Resource, Networked, Clone, Copy, Debug, Default, PartialEq)]
#[networked(visibility = HostOnly)]
struct Secret(u64);

fn assess(units: Query<(&Position, &mut Threat)>) {
    for (position, mut threat) in units {
        threat.0 = position.0.x * 2.0;
    }
}

fn game() -> Game {
    Game::builder("publish")
        .component::<Position>()
        .component::<Path>()
        .component::<Burning>()
        .component::<Armour>()
        .component::<Shield>()
        .component::<Frozen>()
        .component::<Plan>()
        .component::<Threat>()
        .resource::<Score>()
        .resource::<Secret>()
        .derive_systems(|| assess)
        .setup(|world, _setup| {
            world.insert_resource(Secret(7));
        })
        .build()
        .unwrap()
}

fn below(prng: &mut Prng, bound: usize) -> usize {
    usize::try_from(prng.below(u64::try_from(bound).unwrap())).unwrap()
}

/// One random change to the world, of any kind that a game may make.
fn change(world: &mut World, prng: &mut Prng) {
    let index = world.resource::<NetIndex>();
    let entities: Vec<Entity> = index.iter().map(|(_id, entity)| entity).collect();
    if entities.is_empty() || prng.below(6) == 0 {
        let position = Position(Vec2::new(prng.unit_f32(), prng.unit_f32()));
        world.spawn_networked((position, Plan(prng.next_u32())));
        return;
    }
    let other = entities[below(prng, entities.len())];
    let other = *world.get::<NetId>(other).unwrap();
    let mut entity = world.entity_mut(entities[below(prng, entities.len())]);
    let number = u16::try_from(prng.below(100)).unwrap();
    match prng.below(20) {
        0 => entity.despawn(),
        1 => drop(entity.insert(Path(vec![other; usize::from(number % 4)]))),
        2 => drop(entity.remove::<Path>()),
        3 | 4 => drop(entity.insert(Burning { ticks: number })),
        5 => drop(entity.remove::<Burning>()),
        6 => drop(entity.insert(Armour(3))),
        7 => drop(entity.remove::<Armour>()),
        8 => drop(entity.remove::<Shield>()),
        9 => drop(entity.insert(Disabled)),
        10 => drop(entity.remove::<Disabled>()),
        11 => drop(entity.insert(Frozen)),
        12 => drop(entity.remove::<Frozen>()),
        13 => drop(entity.remove::<Position>()),
        14 => drop(entity.insert(Owner(Slot(2)))),
        15 => {
            if let Some(mut path) = entity.get_mut::<Path>() {
                path.0.push(other);
            }
        }
        16 => world.insert_resource(Score {
            names: vec!["a".into(); usize::from(number)],
        }),
        17 => drop(world.remove_resource::<Score>()),
        18 => world.resource_mut::<Secret>().0 += 1,
        _ => {
            if let Some(mut position) = entity.get_mut::<Position>() {
                position.0.x += 1.0;
            }
        }
    }
}

fn drop<T>(_value: T) {}

/// What a client sees of `simulation`, computed the long way.
fn visible(simulation: &mut EcsSimulation) -> Snapshot {
    let mut snapshot = simulation.snapshot();
    let schema = simulation.game().schema().clone();
    for (rows, kind) in snapshot.kinds.iter_mut().zip(schema.kinds()) {
        if kind.visibility != Visibility::Client {
            *rows = KindRows::default();
        }
    }
    snapshot
}

fn published(simulation: &mut EcsSimulation) -> Snapshot {
    let mut snapshot = Snapshot::default();
    simulation.publish(&mut snapshot);
    snapshot
}

/// What leads from one state to the other.
fn between(game: &Game, before: Option<&Snapshot>, after: &Snapshot) -> Patch {
    let entity = game.schema().kind_index("phalanx.entity").unwrap();
    let gone = |now: &KindRows, then: &KindRows| -> Vec<id::NetId> {
        let is_gone = |id: &&id::NetId| now.ids.binary_search(id).is_err();
        then.ids.iter().filter(is_gone).copied().collect()
    };
    let mut patch = Patch {
        tick: after.tick,
        is_whole: before.is_none(),
        removed: before.map_or_else(Vec::new, |before| {
            gone(&after.kinds[entity], &before.kinds[entity])
        }),
        kinds: Vec::new(),
    };
    for (index, now) in after.kinds.iter().enumerate() {
        let then = before.map(|before| &before.kinds[index]);
        let mut rows = PatchRows::default();
        for (id, row) in now.rows() {
            if then.and_then(|then| then.find(id)) != Some(row) {
                rows.rows.push(id, |out| out.extend_from_slice(row));
            }
        }
        if let Some(then) = then {
            rows.removed = gone(now, then);
            rows.removed
                .retain(|id| patch.removed.binary_search(id).is_err());
        }
        patch.kinds.push(rows);
    }
    patch
}

#[test]
fn what_is_published_is_the_visible_state_whatever_happened_in_between() {
    let game = game();
    let mut simulation = game.simulation(1, 2);
    let seed = 31;
    let mut prng = Prng::new(seed);
    let mut out = Snapshot::default();
    let mut image = EcsImage::default();
    simulation.capture(&mut image);
    for round in 0..400 {
        // Mostly values change in place; that is the path with a memory.
        let changes = prng.below(if round % 4 == 0 { 40 } else { 3 });
        for _ in 0..changes {
            change(simulation.world_mut(), &mut prng);
        }
        match prng.below(12) {
            0 => simulation.capture(&mut image),
            1 => simulation.restore(&image),
            2 => {
                let frame = InputFrame::empty(simulation.tick().next(), 2, 0);
                simulation.step(&frame, StepKind::First);
            }
            3 => {
                let snapshot = simulation.snapshot();
                simulation.import(&snapshot).unwrap();
            }
            _ => {}
        }
        simulation.publish(&mut out);
        assert_eq!(out, visible(&mut simulation), "seed {seed}, round {round}");
        let owner = game.schema().kind_index("phalanx.owner").unwrap();
        let mut expected = out.clone();
        let owned = core::mem::take(&mut expected.kinds[owner].ids);
        for (kind, rows) in expected.kinds.iter_mut().enumerate() {
            *rows = KindRows::default();
            for (id, row) in out.kinds[kind].rows() {
                if owned.binary_search(&id).is_ok() {
                    rows.push(id, |bytes| bytes.extend_from_slice(row));
                }
            }
        }
        simulation.publish_owned(Slot(2), &mut out);
        assert_eq!(out, expected, "seed {seed}, round {round}");
        simulation.publish_owned(Slot(1), &mut out);
        assert!(out.kinds.iter().all(KindRows::is_empty));
    }
    simulation.publish(&mut out);
    assert!(out.kinds.iter().any(|rows| rows.len() > 50));
}

#[test]
fn patches_lead_from_any_state_to_the_next() {
    let game = game();
    let mut host = game.simulation(1, 2);
    let mut client = game.simulation(1, 2);
    client.set_side(Side::Predicting(Slot(0)));
    let seed = 77;
    let mut prng = Prng::new(seed);
    let mut held: Option<Snapshot> = None;
    for round in 0..400 {
        for _ in 0..prng.below(25) {
            change(host.world_mut(), &mut prng);
        }
        let frame = InputFrame::empty(host.tick().next(), 2, 0);
        host.step(&frame, StepKind::First);
        if prng.below(20) == 0 {
            held = None;
            // Whatever the client had made of its world.
            for _ in 0..20 {
                change(client.world_mut(), &mut prng);
            }
        }
        let now = published(&mut host);
        let patch = between(&game, held.as_ref(), &now);
        client.patch(&patch).unwrap();
        assert_eq!(visible(&mut client), now, "seed {seed}, round {round}");
        assert_eq!(client.tick(), host.tick());
        for (threat, position) in client
            .world_mut()
            .query::<(&Threat, &Position)>()
            .iter(client.world())
        {
            assert_eq!(threat.0, position.0.x * 2.0, "derived values follow");
        }
        held = Some(now);
    }
}

#[test]
fn what_clients_do_not_see_stays_the_clients_own() {
    let game = game();
    let mut host = game.simulation(1, 2);
    let entity = host.world_mut().spawn_networked((Armour(1), Plan(5))).id();
    let id = *host.world().get::<NetId>(entity).unwrap();
    let mut client = game.simulation(9, 2);
    let patch = between(&game, None, &published(&mut host));
    client.patch(&patch).unwrap();
    let twin = client.world().resource::<NetIndex>().get(id).unwrap();
    assert_eq!(client.world().get::<Plan>(twin), None);
    client.world_mut().entity_mut(twin).insert(Plan(1));
    client.world_mut().resource_mut::<Secret>().0 = 99;
    host.world_mut().get_mut::<Armour>(entity).unwrap().0 = 8;
    for whole in [true, false] {
        let mut patch = patch.clone();
        patch.is_whole = whole;
        client.patch(&patch).unwrap();
        assert_eq!(client.world().get::<Plan>(twin), Some(&Plan(1)));
        assert_eq!(client.world().resource::<Secret>(), &Secret(99));
    }
}

#[test]
fn a_refused_patch_changes_nothing() {
    let game = game();
    let mut host = game.simulation(1, 2);
    let mut prng = Prng::new(3);
    for _ in 0..300 {
        change(host.world_mut(), &mut prng);
    }
    host.world_mut().insert_resource(Score::default());
    let mut client = game.simulation(1, 2);
    let good = between(&game, None, &published(&mut host));
    client.patch(&good).unwrap();
    let before = client.snapshot();
    let kind = |name| game.schema().kind_index(name).unwrap();
    let (position, score, plan) = (kind("Position"), kind("Score"), kind("Plan"));
    type BreakIt<'a> = (&'a str, &'a dyn Fn(&mut Patch));
    let break_it: [BreakIt<'_>; 11] = [
        ("a kind is missing", &|bad| bad.kinds.truncate(3)),
        ("ids repeat", &|bad| {
            let ids = &mut bad.kinds[position].rows.ids;
            ids[1] = ids[0];
        }),
        ("an id is a client's", &|bad| {
            let key = SpawnKey {
                slot: Slot(1),
                tick: Tick::new(4),
                ordinal: 0,
            };
            *bad.kinds[position].rows.ids.last_mut().unwrap() = key.predicted_id().raw();
        }),
        ("an id is none", &|bad| {
            bad.kinds[position].rows.ids[0] = NetId::NONE.raw();
        }),
        ("an end is too far", &|bad| {
            bad.kinds[position].rows.ends[0] = u32::MAX;
        }),
        ("ends are missing", &|bad| {
            bad.kinds[position].rows.ends.clear();
        }),
        ("bytes are missing", &|bad| {
            bad.kinds[position].rows.bytes.truncate(9);
        }),
        ("a resource is on an entity", &|bad| {
            bad.kinds[score].rows.ids[0] = NetId::from_bits(3).raw();
        }),
        ("a text is none", &|bad| {
            bad.kinds[score].rows.bytes.fill(255);
        }),
        ("a kind is the host's", &|bad| {
            bad.kinds[plan].removed.push(NetId::from_bits(3).raw());
        }),
        ("removed ids are out of order", &|bad| {
            bad.removed = vec![NetId::from_bits(3).raw(), NetId::from_bits(2).raw()];
        }),
    ];
    for (what, break_it) in break_it {
        let mut bad = good.clone();
        bad.tick = Tick::new(50);
        break_it(&mut bad);
        let error: ImportError = client.patch(&bad).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert_eq!(client.snapshot(), before, "{what}");
        assert_eq!(client.tick(), before.tick, "{what}");
    }
}

#[test]
fn what_the_engine_needs_stays_whatever_a_patch_says() {
    let game = game();
    let mut host = game.simulation(1, 2);
    host.world_mut().spawn_networked(Armour(1));
    let mut patch = between(&game, None, &published(&mut host));
    let kind = |name| game.schema().kind_index(name).unwrap();
    patch.kinds[kind("phalanx.slots")].rows.clear();
    let mut client = game.simulation(1, 2);
    client.patch(&patch).unwrap();
    patch.is_whole = false;
    let removed = &mut patch.kinds[kind("phalanx.slots")].removed;
    removed.push(NetId::NONE.raw());
    let removed = &mut patch.kinds[kind("phalanx.entity")].removed;
    removed.push(NetId::from_bits(1).raw());
    client.patch(&patch).unwrap();
    assert!(client.world().contains_resource::<SlotPresence>());
    assert_eq!(client.world().resource::<NetIndex>().len(), 1);
    let frame = InputFrame::empty(client.tick().next(), 2, 0);
    client.step(&frame, StepKind::First);
}

fn volley(tick: Res<CurrentTick>, side: Res<Side>, mut commands: NetCommands) {
    if tick.0.number().is_multiple_of(2) {
        commands.spawn_predicted(Slot(1), Frozen);
        commands.spawn_predicted(Slot(1), Armour(2));
        commands.spawn(Shield(1));
    }
    if side.is_authority() {
        commands.spawn(Plan(1));
    }
}

fn roll(mut rng: ResMut<TickRng>, units: Query<&mut Position>) {
    for mut position in units {
        position.0.y = rng.unit_f32();
    }
}

#[test]
fn predicted_spawns_have_the_same_ids_again_and_never_the_hosts() {
    let game = Game::builder("spawns")
        .component::<Position>()
        .component::<Threat>()
        .component::<Frozen>()
        .component::<Armour>()
        .component::<Shield>()
        .component::<Plan>()
        .systems(|| (volley, roll).chain())
        .derive_systems(|| assess)
        .setup(|world, _setup| {
            world.spawn_networked(Position(Vec2::ZERO));
        })
        .build()
        .unwrap();
    let mut host = game.simulation(1, 2);
    let mut client = game.simulation(1, 2);
    client.set_side(Side::Predicting(Slot(1)));
    client
        .patch(&between(&game, None, &published(&mut host)))
        .unwrap();
    let step = |simulation: &mut EcsSimulation| {
        let frame = InputFrame::empty(simulation.tick().next(), 2, 0);
        simulation.step(&frame, StepKind::First);
    };
    let mut base = EcsImage::default();
    let mut held = published(&mut host);
    let mut seen: Vec<(Tick, String)> = Vec::new();
    client.capture(&mut base);
    for round in 0..12 {
        client.restore(&base);
        step(&mut host);
        let now = published(&mut host);
        client.patch(&between(&game, Some(&held), &now)).unwrap();
        assert_eq!(visible(&mut client), now);
        held = now;
        client.capture(&mut base);
        for _ in 0..5 {
            step(&mut client);
            let ids = client.world().resource::<NetIndex>().iter();
            let ahead: Vec<NetId> = ids
                .map(|(id, _)| id)
                .filter(|id| id.is_predicted())
                .collect();
            let volleys = (host.tick().number() + 1..=client.tick().number())
                .filter(|tick| tick.is_multiple_of(2))
                .count();
            assert_eq!(ahead.len(), volleys * 3, "round {round}");
            // Wherever prediction starts from, the tick leads to the same values.
            let rolled = format!("{:?}", client.world().resource::<TickRng>());
            match seen.iter().find(|(tick, _)| *tick == client.tick()) {
                Some((_, earlier)) => assert_eq!(earlier, &rolled, "round {round}"),
                None => seen.push((client.tick(), rolled)),
            }
        }
    }
    // The host's own entities carry the keys by which the client knows them.
    let mut keys = host.world_mut().query::<&SpawnKey>();
    let mut keys: Vec<SpawnKey> = keys.iter(host.world()).copied().collect();
    keys.sort();
    assert_eq!(keys.len(), 12);
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(keys[0].predicted_id().is_predicted());
    // As the new host, the client goes on with ids that nobody has.
    client.restore(&base);
    client.set_side(Side::Authority);
    let newest = client.world_mut().spawn_networked(Armour(1)).id();
    let newest = *client.world().get::<NetId>(newest).unwrap();
    assert!(!newest.is_predicted());
    let ids = host.world().resource::<NetIndex>();
    assert!(ids.iter().all(|(id, _)| id < newest));
}

#[test]
fn a_standby_takes_over_all_of_the_hosts_state_and_gives_ids_of_its_term() {
    let game = game();
    let mut host = game.simulation(1, 2);
    let mut client = game.simulation(1, 2);
    client.set_side(Side::Predicting(Slot(1)));
    let mut prng = Prng::new(5);
    let step = |simulation: &mut EcsSimulation| {
        let frame = InputFrame::empty(simulation.tick().next(), 2, 0);
        simulation.step(&frame, StepKind::First);
    };
    for _ in 0..40 {
        for _ in 0..20 {
            change(host.world_mut(), &mut prng);
        }
        step(&mut host);
    }
    // What the client spawned in advance is not the host's.
    step(&mut client);
    client.world_mut().spawn_networked(Armour(9));
    let mut exact = Snapshot::default();
    host.capture_exact(&mut exact);
    assert_eq!(exact, host.snapshot());
    assert_eq!(exact.validate(game.schema()), Ok(()));

    client.become_authority();
    assert!(client.side().is_authority());
    client.import(&exact).unwrap();
    let hash = |simulation: &mut EcsSimulation| {
        // Derived values are what a game makes of the rest.
        let hash = simulation.state_hash();
        hash.without_derived(simulation.schema()).combined()
    };
    assert_eq!(hash(&mut client), hash(&mut host), "host-only kinds, too");
    for _ in 0..10 {
        step(&mut host);
        step(&mut client);
        assert_eq!(hash(&mut client), hash(&mut host), "it goes on as the host");
    }
    let ids = client.world().resource::<NetIndex>();
    assert!(ids.iter().all(|(id, _)| !id.is_predicted()));
    // What it publishes is what the host would, also after another state was imported.
    let (mut here, mut there) = (Snapshot::default(), Snapshot::default());
    for round in 0..60 {
        if round == 30 {
            host.capture_exact(&mut exact);
            client.import(&exact).unwrap();
        }
        let mut twin = prng;
        for _ in 0..5 {
            change(host.world_mut(), &mut prng);
            change(client.world_mut(), &mut twin);
        }
        step(&mut host);
        step(&mut client);
        if round % 3 == 0 {
            host.publish(&mut there);
            client.publish(&mut here);
            assert_eq!(hash(&mut client), hash(&mut host), "round {round}");
            assert_eq!(here, there, "round {round}");
        }
    }

    client.begin_term(id::Term(2));
    let one = client.world_mut().spawn_networked(Armour(1)).id();
    let one = client.world().get::<NetId>(one).unwrap().raw();
    assert_eq!(one, id::NetId::new(id::Term(2), 1));
    // The same term again takes nothing back.
    client.begin_term(id::Term(2));
    let two = client.world_mut().spawn_networked(Armour(1)).id();
    let two = client.world().get::<NetId>(two).unwrap().raw();
    assert_eq!(two, id::NetId::new(id::Term(2), 2));
}
