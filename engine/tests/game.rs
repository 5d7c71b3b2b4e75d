//! What a game is refused for, and what systems see.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bevy_ecs::message::{Message, MessageReader, MessageWriter};
use phalanx::netcode::state::SchemaError;
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Counter(u32);

#[derive(Resource, Networked, Clone, Debug, Default, PartialEq)]
struct Log(Vec<u32>);

fn count(mut counters: Query<&mut Counter>) {
    for mut counter in &mut counters {
        counter.0 += 1;
    }
}

fn refused(game: GameBuilder) -> GameError {
    game.build().unwrap_err()
}

#[test]
fn systems_in_conflict_are_named_with_what_they_share() {
    fn double(mut counters: Query<&mut Counter>) {
        for mut counter in &mut counters {
            counter.0 *= 2;
        }
    }
    let game = || Game::builder("g").component::<Counter>();
    let error = refused(game().systems(|| (count, double)));
    let GameError::Ambiguous {
        first,
        second,
        data,
    } = &error
    else {
        panic!("{error}");
    };
    let mut names = [first.as_str(), second.as_str()];
    names.sort_unstable();
    assert!(
        names[0].ends_with("count") && names[1].ends_with("double"),
        "{error}"
    );
    assert!(data.contains("Counter"), "{error}");
    assert!(
        game()
            .systems(|| (count, double.after(count)))
            .build()
            .is_ok()
    );
}

#[test]
fn two_systems_that_draw_random_numbers_must_be_ordered() {
    fn first(mut rng: ResMut<TickRng>) {
        rng.next_u64();
    }
    fn second(mut commands: NetCommands, mut rng: ResMut<TickRng>) {
        rng.next_u64();
        commands.spawn(());
    }
    let error = refused(Game::builder("g").systems(|| (first, second)));
    assert!(matches!(error, GameError::Ambiguous { .. }), "{error}");
}

#[test]
fn memory_in_systems_is_refused_where_types_show_it() {
    fn local(mut calls: Local<u32>) {
        *calls += 1;
    }
    fn changed(_counters: Query<&Counter, Changed<Counter>>) {}
    fn removed(_counters: RemovedComponents<Counter>) {}
    let parameter = |game: GameBuilder| {
        let error = refused(game);
        let GameError::MemoryOutsideState { parameter } = error else {
            panic!("{error}");
        };
        parameter
    };
    let game = || Game::builder("g").component::<Counter>();
    assert_eq!(parameter(game().systems(|| local)), "Local");
    assert_eq!(parameter(game().systems(|| (count, changed))), "Changed");
    assert_eq!(parameter(game().systems(|| removed)), "RemovedComponents");
}

#[test]
fn messages_are_refused_even_in_ordered_systems() {
    #[derive(Message)]
    struct Hit;
    fn write(mut hits: MessageWriter<Hit>) {
        hits.write(Hit);
    }
    fn read(mut hits: MessageReader<Hit>) {
        hits.read().for_each(drop);
    }
    let error = refused(Game::builder("g").systems(|| (write, read).chain()));
    assert!(
        matches!(error, GameError::MemoryOutsideState { .. }),
        "{error}"
    );
}

#[test]
fn names_must_be_unique_and_not_the_engines() {
    #[derive(Component, Networked, Clone)]
    #[networked(name = "Counter")]
    struct Other;
    let error = refused(
        Game::builder("g")
            .component::<Counter>()
            .component::<Other>(),
    );
    assert_eq!(
        error,
        GameError::Schema(SchemaError::DuplicateName("Counter".into()))
    );
    let error = refused(
        Game::builder("g")
            .component::<Counter>()
            .component::<Counter>(),
    );
    assert!(matches!(error, GameError::Schema(_)), "{error}");

    #[derive(Resource, Networked, Clone)]
    #[networked(name = "phalanx.mine")]
    struct Mine;
    let error = refused(Game::builder("g").resource::<Mine>());
    assert_eq!(error, GameError::ReservedName("phalanx.mine".into()));
    assert!(matches!(refused(Game::builder("")), GameError::BadId(_)));
}

#[test]
fn inputs_must_have_room_in_a_datagram() {
    #[derive(Exact, Default)]
    struct Large([u64; 8], bool);
    #[derive(Exact, Default)]
    struct Huge([[u64; 32]; 32]);
    assert!(matches!(
        refused(Game::builder("g").input::<Large>()),
        GameError::InputTooLarge { bytes: 65, .. }
    ));
    assert!(matches!(
        refused(Game::builder("g").input::<Huge>()),
        GameError::InputTooLarge { bytes: 8192, .. }
    ));
    assert!(matches!(
        refused(Game::builder("g").input::<Vec<u8>>()),
        GameError::InputUnbounded(_)
    ));
    assert!(matches!(
        refused(Game::builder("g").input::<u8>().input::<u16>()),
        GameError::TwoInputs { .. }
    ));
    let game = Game::builder("g")
        .input::<Option<[u8; 63]>>()
        .build()
        .unwrap();
    assert_eq!(game.input_bytes(), 64);
    assert_eq!(game.encode_input(&None::<[u8; 63]>), game.neutral_input());
}

#[test]
fn derived_kinds_need_systems_that_compute_them() {
    #[derive(Component, Networked, Clone)]
    #[networked(visibility = Derived)]
    struct Cache(u8);
    let game = || Game::builder("g").component::<Cache>();
    assert_eq!(refused(game()), GameError::NothingDerives("Cache".into()));
    assert!(game().derive_systems(|| count).build().is_ok());
}

#[test]
fn builds_do_not_depend_on_the_order_of_registration() {
    let one = Game::builder("g").component::<Counter>().resource::<Log>();
    let other = Game::builder("g").resource::<Log>().component::<Counter>();
    let (one, other) = (one.build().unwrap(), other.build().unwrap());
    assert_eq!(one.schema().hash(), other.schema().hash());
}

/// What the systems of each tick saw, newest last.
fn observe(
    mut log: ResMut<Log>,
    tick: Res<CurrentTick>,
    stepping: Res<Stepping>,
    inputs: Res<Inputs<u16>>,
) {
    let sum: u32 = inputs.iter().map(|(_slot, &input)| u32::from(input)).sum();
    let joined = u32::try_from(inputs.joined().count()).unwrap();
    let left = u32::try_from(inputs.left().count()).unwrap();
    let first = u32::from(stepping.is_first());
    log.0 = vec![tick.0.number(), sum, joined, left, first];
}

fn observer() -> Game {
    Game::builder("g")
        .resource::<Log>()
        .input::<u16>()
        .systems(|| observe)
        .setup(|world, _setup| {
            world.init_resource::<Log>();
        })
        .build()
        .unwrap()
}

#[test]
fn systems_see_tick_inputs_presence_and_kind_of_step() {
    let game = observer();
    let mut simulation = game.simulation(1, 3);
    let mut step = |number: u32, inputs: &[(u8, u16)], kind| {
        let mut frame = InputFrame::empty(Tick::new(number), 3, game.input_bytes());
        for (slot, input) in inputs {
            frame.set(Slot(*slot), &game.encode_input(input));
        }
        simulation.step(&frame, kind);
        simulation.world().resource::<Log>().0.clone()
    };
    assert_eq!(
        step(1, &[(0, 5), (2, 300)], StepKind::First),
        [1, 305, 2, 0, 1]
    );
    assert_eq!(step(2, &[(0, 5)], StepKind::Again), [2, 5, 0, 1, 0]);
    assert_eq!(step(3, &[(0, 1)], StepKind::First), [3, 1, 0, 0, 1]);
    assert_eq!(step(4, &[], StepKind::First), [4, 0, 0, 1, 1]);
}

#[test]
fn a_node_that_joins_sees_the_same_presence_changes() {
    let game = observer();
    let mut host = game.simulation(1, 3);
    let mut frame = InputFrame::empty(Tick::new(1), 3, game.input_bytes());
    frame.set(Slot(1), &game.encode_input(&9_u16));
    host.step(&frame, StepKind::First);

    let mut joiner = game.simulation(1, 3);
    joiner.import(&host.snapshot()).unwrap();
    assert_eq!(joiner.tick(), Tick::new(1));
    let empty = InputFrame::empty(Tick::new(2), 3, game.input_bytes());
    for simulation in [&mut host, &mut joiner] {
        simulation.step(&empty, StepKind::First);
        assert_eq!(simulation.world().resource::<Log>().0, [2, 0, 0, 1, 1]);
    }
    assert_eq!(host.state_hash(), joiner.state_hash());
    assert_eq!(
        host.snapshot().hash(game.schema()),
        host.state_hash().without_derived(game.schema())
    );
}

#[test]
fn ordered_goes_by_id_and_finds_by_id() {
    #[derive(Component)]
    struct Marked;
    fn check(mut log: ResMut<Log>, mut counters: Ordered<(&NetId, &mut Counter), With<Marked>>) {
        let read: Vec<NetId> = counters.iter().map(|(&id, _)| id).collect();
        let mut written = Vec::new();
        for (&id, mut counter) in counters.iter_mut() {
            counter.0 += 1;
            written.push(id);
        }
        assert!(read.is_sorted() && read == written);
        for &id in &read {
            let (&found, counter) = counters.get(id).unwrap();
            assert_eq!(found, id);
            log.0.push(counter.0);
        }
        assert!(!counters.contains(NetId::from_bits(99)));
        assert!(
            counters.get_mut(NetId::from_bits(2)).is_none(),
            "it is not marked"
        );
    }
    let game = Game::builder("g")
        .component::<Counter>()
        .resource::<Log>()
        .systems(|| check)
        .setup(|world, _setup| {
            world.init_resource::<Log>();
            // Ids descend along the rows, in two tables.
            for (id, marked) in [(9_u32, true), (7, true), (2, false), (1, true), (4, true)] {
                let mut entity = world.spawn((NetId::from_bits(id.into()), Counter(10 * id)));
                if marked {
                    entity.insert(Marked);
                }
            }
        })
        .build()
        .unwrap();
    let mut simulation = game.simulation(0, 0);
    simulation.step(&InputFrame::empty(Tick::new(1), 0, 0), StepKind::First);
    assert_eq!(simulation.world().resource::<Log>().0, [11, 41, 71, 91]);
}

/// A driver may live on any thread, and a recorder may take images to another one.
#[test]
fn simulations_and_images_can_change_threads() {
    let game = observer();
    let mut simulation = game.simulation(1, 3);
    let mut image = EcsImage::default();
    simulation.capture(&mut image);
    let hash = simulation.state_hash();
    let moved = std::thread::spawn(move || {
        simulation.restore(&image);
        (simulation.state_hash(), image.tick())
    });
    assert_eq!(moved.join().unwrap(), (hash, Tick::ZERO));
}
