//! The state codec: bodies say exactly what the snapshots hold, and wrong bytes do no harm.

#[path = "delta/golden.rs"]
mod golden;
#[path = "delta/world.rs"]
mod world;

use std::sync::Arc;

use phalanx_netcode::delta::{
    Decoder, Encoder, Entry, PartItem, PartState, Reference, Span, View, WholeEnd,
};
use phalanx_netcode::id::NetId;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{
    EntityRef, ExactType, FieldSchema, KindSchema, KindShape, QuantizedSnapshot, Schema, ShapeId,
    Shapes, Visibility, WireForm, WireLayout,
};
use phalanx_netcode::tick::Tick;
use phalanx_netcode::wire::bytes::DecodeError;
use world::{Moment, World, below, content, random_schema};

/// A client that holds what it decoded.
struct Client {
    shapes: Shapes,
    decoder: Decoder,
    held: Vec<QuantizedSnapshot>,
}

impl Client {
    fn new(layout: &Arc<WireLayout>) -> Self {
        let mut shapes = Shapes::default();
        // Numbers of shapes differ from the host's.
        let kinds: Vec<u16> = layout.kinds().map(|kind| kind.kind).collect();
        shapes.intern(layout, &kinds).expect("the first shape");
        Self {
            shapes,
            decoder: Decoder::new(Arc::clone(layout)),
            held: Vec::new(),
        }
    }
}

/// Ages of references: the base's, and some older ones; every set that is possible comes up.
fn random_ages(prng: &mut Prng, held: usize) -> Vec<usize> {
    if held == 0 || prng.below(10) == 0 {
        return vec![];
    }
    let mut ages = vec![1 + below(prng, held.min(8))];
    for gap in [2, 3, 4, 6] {
        let age = ages[0] + gap;
        if age <= held && prng.below(4) > 0 {
            ages.push(age);
        }
    }
    ages
}

fn references<'a>(ages: &[usize], views: &[View<'a>]) -> Vec<Reference<'a>> {
    ages.iter()
        .map(|&age| Reference {
            age: u32::try_from(age).expect("small"),
            view: views[views.len() - age],
        })
        .collect()
}

#[test]
fn whole_bodies_come_back_in_any_split() {
    for seed in 0..60 {
        let mut prng = Prng::with_stream(seed, 1);
        let layout = Arc::new(WireLayout::new(&random_schema(&mut prng)));
        let count = below(&mut prng, 40);
        let mut host = World::new(Arc::clone(&layout), seed, count, seed % 2 == 1);
        let mut client = Client::new(&layout);
        let mut encoder = Encoder::new(Arc::clone(&layout));
        let mut moments: Vec<Moment> = Vec::new();
        let restlessness = [0, 10, 50, 100][below(&mut prng, 4)];
        for _ in 0..16 {
            let moment = host.step(restlessness);
            let ages = random_ages(&mut prng, moments.len());
            let views: Vec<View<'_>> = moments.iter().map(Moment::view).collect();
            let theirs: Vec<View<'_>> = client.held.iter().map(View::all).collect();
            let room = if prng.below(3) == 0 {
                usize::MAX / 16
            } else {
                40 + below(&mut prng, 1200)
            };
            let whole = bodies(
                &mut encoder,
                &host,
                &moment,
                &references(&ages, &views),
                room,
            );
            let Some(whole) = whole else {
                // A single entity was larger: then all at once.
                moments.push(moment);
                let now = moments.last().expect("just pushed");
                let all = encoder.encode_whole(
                    &host.shapes,
                    now.view(),
                    &[],
                    NetId::NONE,
                    1 << 20,
                    &mut Vec::new(),
                );
                assert_eq!(all, WholeEnd::Done, "seed {seed}");
                client
                    .held
                    .push(copy(&layout, &host.shapes, now, &mut client.shapes));
                continue;
            };
            let mut got = QuantizedSnapshot::new(moment.snapshot.tick);
            let mut next = Some(NetId::NONE);
            let refs = references(&ages, &theirs);
            for body in &whole {
                let mut part = QuantizedSnapshot::default();
                let span = client.decoder.decode_whole(
                    &mut client.shapes,
                    moment.snapshot.tick,
                    &refs,
                    body,
                    &mut part,
                );
                let span = span.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                assert_eq!(Some(span.from), next, "seed {seed}");
                next = span.next;
                part.entities().for_each(|entity| got.push_entity(entity));
            }
            assert_eq!(next, None, "seed {seed}");
            assert_eq!(
                content(&layout, &client.shapes, View::all(&got)),
                content(&layout, &host.shapes, moment.view()),
                "seed {seed}"
            );
            client.held.push(got);
            moments.push(moment);
        }
    }
}

/// What a client would hold of a moment.
fn copy(
    layout: &WireLayout,
    from: &Shapes,
    moment: &Moment,
    shapes: &mut Shapes,
) -> QuantizedSnapshot {
    let mut held = QuantizedSnapshot::new(moment.snapshot.tick);
    for (id, kinds, lanes, opaque) in content(layout, from, moment.view()) {
        let shape = shapes.intern(layout, &kinds).expect("few shapes");
        held.push(id, shape, moment.snapshot.tick, |to, bytes| {
            to.extend(lanes);
            bytes.extend(opaque);
        });
    }
    held
}

/// The bodies of a snapshot; `None` if an entity does not fit the room.
fn bodies(
    encoder: &mut Encoder,
    host: &World,
    moment: &Moment,
    references: &[Reference<'_>],
    room: usize,
) -> Option<Vec<Vec<u8>>> {
    let mut bodies = Vec::new();
    let mut from = NetId::NONE;
    loop {
        let mut body = Vec::new();
        let end = encoder.encode_whole(
            &host.shapes,
            moment.view(),
            references,
            from,
            room,
            &mut body,
        );
        assert!(body.len() <= room, "{} of {room} bytes", body.len());
        bodies.push(body);
        match end {
            WholeEnd::Done => return Some(bodies),
            WholeEnd::Next(next) => {
                assert!(from < next, "a body says something");
                from = next;
            }
            WholeEnd::TooLarge(_) => return None,
        }
    }
}

/// An entity's shape, lanes and opaque bytes.
type Value = (ShapeId, Vec<i32>, Vec<u8>);

/// A receiver of part bodies.
struct Parts<'a> {
    layout: &'a WireLayout,
    held: &'a [QuantizedSnapshot],
    taken: Vec<(NetId, Option<Value>)>,
}

impl PartState for Parts<'_> {
    fn reference(&self, id: NetId, age: u32) -> Option<EntityRef<'_>> {
        let at = self.held.len().checked_sub(usize::try_from(age).ok()?)?;
        self.held[at].find(id)
    }

    fn take(
        &mut self,
        id: NetId,
        value: Option<(ShapeId, &[i32], &[u8])>,
    ) -> Result<(), DecodeError> {
        let value = value.map(|(shape, lanes, opaque)| (shape, lanes.to_vec(), opaque.to_vec()));
        self.taken.push((id, value));
        Ok(())
    }
}

#[test]
fn part_bodies_come_back_item_by_item() {
    for seed in 0..60 {
        let mut prng = Prng::with_stream(seed, 2);
        let layout = Arc::new(WireLayout::new(&random_schema(&mut prng)));
        let mut host = World::new(Arc::clone(&layout), seed, 30, seed % 2 == 1);
        let mut client = Client::new(&layout);
        let mut encoder = Encoder::new(Arc::clone(&layout));
        let mut moments: Vec<Moment> = Vec::new();
        for _ in 0..12 {
            let moment = host.step(60);
            let room = 10 + below(&mut prng, 600);
            encoder.begin_part(room);
            let mut pushed = Vec::new();
            for place in 0..moment.view().len() {
                let (entity, hidden) = moment.view().entity(place);
                let mut refs = Vec::new();
                for age in 1..=moments.len().min(7) {
                    let old: &Moment = &moments[moments.len() - age];
                    let at = old.view().place_of(entity.id);
                    let is_there = at < old.view().len() && old.view().id(at) == entity.id;
                    if is_there && refs.len() < 2 && prng.below(2) == 0 {
                        let (old, hidden) = old.view().entity(at);
                        refs.push((u32::try_from(age).expect("small"), old, hidden));
                    }
                }
                let is_gone = prng.below(9) == 0;
                let item = PartItem {
                    id: entity.id,
                    value: (!is_gone).then_some((entity, hidden)),
                    references: &refs,
                };
                if prng.below(3) > 0 && encoder.push_part(&host.shapes, &item) {
                    pushed.push((place, is_gone));
                }
            }
            let mut body = vec![7];
            let len = encoder.finish_part(&mut body);
            assert_eq!(len + 1, body.len(), "seed {seed}");
            assert!(len <= room, "seed {seed}: {len} of {room} bytes");
            let mut state = Parts {
                layout: &layout,
                held: &client.held,
                taken: vec![],
            };
            if !pushed.is_empty() {
                client
                    .decoder
                    .decode_part(&mut client.shapes, &body[1..], &mut state)
                    .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            assert_eq!(state.taken.len(), pushed.len(), "seed {seed}");
            let expected = content(state.layout, &host.shapes, moment.view());
            for ((id, value), (place, is_gone)) in state.taken.iter().zip(pushed) {
                let (expected_id, kinds, lanes, opaque) = &expected[place];
                assert_eq!(id, expected_id, "seed {seed}");
                let value = value.as_ref().map(|(shape, lanes, opaque)| {
                    (client.shapes.get(*shape).kinds.to_vec(), lanes, opaque)
                });
                let expected = (!is_gone).then(|| (kinds.clone(), lanes, opaque));
                assert_eq!(value, expected, "seed {seed}");
            }
            let held = copy(&layout, &host.shapes, &moment, &mut client.shapes);
            client.held.push(held);
            moments.push(moment);
        }
    }
}

#[test]
fn an_unchanged_world_takes_few_bytes() {
    let mut prng = Prng::new(5);
    let layout = Arc::new(WireLayout::new(&random_schema(&mut prng)));
    let mut host = World::new(Arc::clone(&layout), 5, 500, false);
    let moments: Vec<Moment> = (0..8).map(|_| host.step(0)).collect();
    let views: Vec<View<'_>> = moments.iter().map(Moment::view).collect();
    let mut encoder = Encoder::new(Arc::clone(&layout));
    let mut body = Vec::new();
    let refs = references(&[1, 3, 4, 5, 7], &views[..7]);
    let end = encoder.encode_whole(&host.shapes, views[7], &refs, NetId::NONE, 1180, &mut body);
    assert_eq!(end, WholeEnd::Done);
    assert!(body.len() <= 10, "{} bytes", body.len());
    let theirs: Vec<Reference<'_>> = refs;
    let mut shapes = host.shapes.clone();
    let mut got = QuantizedSnapshot::default();
    let span = Decoder::new(Arc::clone(&layout))
        .decode_whole(&mut shapes, Tick::new(9), &theirs, &body, &mut got)
        .expect("a body");
    let all = Span {
        from: NetId::NONE,
        next: None,
    };
    assert_eq!(span, all);
    let is_same = got.heads() == moments[6].snapshot.heads();
    assert!(is_same, "`changed` is the base's");
}

/// Bodies in a row of `count` entities, of which some move at each step; one comes or goes at some.
fn walkers(
    layout: &WireLayout,
    shapes: &mut Shapes,
    prng: &mut Prng,
    count: usize,
) -> Vec<QuantizedSnapshot> {
    let kinds = [&[0][..], &[0, 1], &[1]].map(|kinds| shapes.intern(layout, kinds));
    let kinds = kinds.map(|shape| shape.expect("three shapes"));
    let mut rows: Vec<(u64, usize, Vec<i32>)> = (1..=count as u64)
        .map(|id| (id * 2, if prng.below(8) == 0 { 1 } else { 0 }, vec![0; 6]))
        .collect();
    let restless = [0, 3, 30, 100][below(prng, 4)];
    let mut moments = Vec::new();
    for tick in 0..12 {
        for (_, _, lanes) in &mut rows {
            if prng.below(100) < restless {
                let at = below(prng, lanes.len());
                lanes[at] += i32::try_from(prng.below(7)).expect("small") - 3;
            }
        }
        match prng.below(10) {
            0 if !rows.is_empty() => {
                rows.remove(below(prng, rows.len()));
            }
            1 => {
                let at = below(prng, rows.len() + 1);
                let id = rows.get(at).map_or(1000 + tick, |row| row.0 - 1);
                let is_new = at.checked_sub(1).is_none_or(|before| rows[before].0 < id);
                if is_new {
                    rows.insert(at, (id, 0, vec![5; 6]));
                }
            }
            2 if !rows.is_empty() => {
                let at = below(prng, rows.len());
                rows[at].1 = below(prng, 3);
            }
            _ => {}
        }
        let now = Tick::new(u32::try_from(tick).expect("few ticks"));
        let mut snapshot = QuantizedSnapshot::new(now);
        for (id, shape, row) in &rows {
            snapshot.push(
                NetId::from_bits(*id),
                kinds[*shape],
                now,
                |lanes, _opaque| {
                    let own = [&row[..3], row, &row[3..]][*shape];
                    lanes.extend_from_slice(own);
                },
            );
        }
        moments.push(snapshot);
    }
    moments
}

#[test]
fn bodies_are_the_same_however_views_are_given() {
    let vector = |name: &str| KindSchema {
        name: name.to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: vec![
            FieldSchema::new("0", ExactType::Vec3).wire(WireForm::Fixed {
                min: -32,
                max: 32,
                per_unit: 512,
            }),
        ],
    };
    let schema = Schema::new(vec![vector("place"), vector("speed")]).expect("two kinds");
    let layout = Arc::new(WireLayout::new(&schema));
    for (seed, count) in (0..).zip([0, 1, 15, 16, 17, 31, 32, 48, 100].repeat(6)) {
        let mut prng = Prng::with_stream(seed, 3);
        let mut shapes = Shapes::default();
        let moments = walkers(&layout, &mut shapes, &mut prng, count);
        let entries: Vec<Vec<Entry>> = moments
            .iter()
            .map(|moment| {
                let indexes = 0..u32::try_from(moment.len()).expect("few");
                indexes.map(|index| Entry { index, hidden: 0 }).collect()
            })
            .collect();
        let all: Vec<View<'_>> = moments.iter().map(View::all).collect();
        let listed: Vec<View<'_>> = moments
            .iter()
            .zip(&entries)
            .map(|(moment, entries)| View::of(moment, entries))
            .collect();
        let mut encoder = Encoder::new(Arc::clone(&layout));
        let mut decoder = Decoder::new(Arc::clone(&layout));
        for number in 0..moments.len() {
            let ages = random_ages(&mut prng, number);
            let room = [usize::MAX / 16, 60 + below(&mut prng, 200)][below(&mut prng, 2)];
            let mut from = NetId::NONE;
            let mut got: [Vec<(NetId, Vec<i32>)>; 2] = Default::default();
            loop {
                let mut bodies = [Vec::new(), Vec::new()];
                let mut ends = Vec::new();
                for (views, body) in [&all, &listed].into_iter().zip(&mut bodies) {
                    let refs = references(&ages, &views[..number]);
                    let now = views[number];
                    ends.push(encoder.encode_whole(&shapes, now, &refs, from, room, body));
                }
                assert_eq!(bodies[0], bodies[1], "seed {seed}, snapshot {number}");
                assert_eq!(ends[0], ends[1], "seed {seed}, snapshot {number}");
                for (views, got) in [&all, &listed].into_iter().zip(&mut got) {
                    let refs = references(&ages, &views[..number]);
                    let mut out = QuantizedSnapshot::default();
                    let tick = moments[number].tick;
                    decoder
                        .decode_whole(&mut shapes, tick, &refs, &bodies[0], &mut out)
                        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                    got.extend(
                        out.entities()
                            .map(|entity| (entity.id, entity.lanes.to_vec())),
                    );
                }
                match ends[0] {
                    WholeEnd::Done => break,
                    WholeEnd::Next(next) => from = next,
                    WholeEnd::TooLarge(id) => panic!("seed {seed}: {id:?} does not fit"),
                }
            }
            let told = moments[number].entities();
            let told: Vec<_> = told
                .map(|entity| (entity.id, entity.lanes.to_vec()))
                .collect();
            assert_eq!(got[0], told, "seed {seed}, snapshot {number}");
            assert_eq!(got[1], told, "seed {seed}, snapshot {number}");
        }
    }
}

/// Mutated bodies: how many, more by `PHALANX_STORM`.
fn storm_count() -> u64 {
    let storm = std::env::var("PHALANX_STORM").ok();
    storm.and_then(|count| count.parse().ok()).unwrap_or(20_000)
}

fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>) {
    for _ in 0..=prng.below(3) {
        let byte = prng.next_u64().to_le_bytes()[0];
        match prng.below(6) {
            0 => bytes.truncate(below(prng, bytes.len() + 1)),
            1 => bytes.push(byte),
            2 => {
                *bytes = (0..prng.below(40))
                    .map(|_| prng.next_u64().to_le_bytes()[0])
                    .collect()
            }
            _ if !bytes.is_empty() => {
                let at = below(prng, bytes.len());
                bytes[at] ^= 1 << prng.below(8);
            }
            _ => {}
        }
    }
}

/// Whether what was decoded lies within the bounds of its lanes, with ids ascending.
fn is_sound(layout: &WireLayout, shapes: &Shapes, snapshot: &QuantizedSnapshot) -> bool {
    let ids: Vec<NetId> = snapshot.heads().iter().map(|head| head.id).collect();
    ids.is_sorted()
        && snapshot.entities().all(|entity| {
            let shape = shapes.get(entity.shape);
            shape.kinds.iter().enumerate().all(|(place, &kind)| {
                let lanes = shape.starts[place] as usize..shape.starts[place + 1] as usize;
                let plan = layout.kind(kind).expect("a kind of the layout");
                entity.lanes[lanes]
                    .iter()
                    .zip(&plan.lanes)
                    .all(|(value, lane)| (lane.min..=lane.max).contains(value))
            })
        })
}

#[test]
fn a_storm_of_mutated_bodies_yields_errors_or_sound_snapshots() {
    let (mut refused, mut accepted) = (0, 0);
    let rounds = 20;
    for seed in 0..rounds {
        let mut prng = Prng::with_stream(seed, 3);
        let layout = Arc::new(WireLayout::new(&random_schema(&mut prng)));
        let mut host = World::new(Arc::clone(&layout), seed, 25, false);
        let moments: Vec<Moment> = (0..8).map(|_| host.step(50)).collect();
        let views: Vec<View<'_>> = moments.iter().map(Moment::view).collect();
        let refs = references(&[1, 2, 5], &views[..7]);
        let mut encoder = Encoder::new(Arc::clone(&layout));
        let mut whole = bodies(&mut encoder, &host, &moments[7], &refs, 700).unwrap_or_default();
        encoder.begin_part(1000);
        let old = &moments[6].snapshot;
        for entity in moments[7].snapshot.entities() {
            let old: Vec<_> = old
                .find(entity.id)
                .map(|old| (1, old, 0))
                .into_iter()
                .collect();
            let item = PartItem {
                id: entity.id,
                value: Some((entity, 0)),
                references: &old,
            };
            encoder.push_part(&host.shapes, &item);
        }
        let mut part = Vec::new();
        encoder.finish_part(&mut part);
        let held: Vec<QuantizedSnapshot> = moments[..7]
            .iter()
            .map(|moment| moment.snapshot.clone())
            .collect();
        let mut decoder = Decoder::new(Arc::clone(&layout));
        let mut out = QuantizedSnapshot::default();
        for number in 0..storm_count() / rounds {
            let mut shapes = host.shapes.clone();
            if number % 3 == 0 || whole.is_empty() {
                let mut bytes = part.clone();
                mutate(&mut prng, &mut bytes);
                let mut state = Parts {
                    layout: &layout,
                    held: &held,
                    taken: vec![],
                };
                let done = decoder.decode_part(&mut shapes, &bytes, &mut state);
                refused += u64::from(done.is_err());
                accepted += u64::from(done.is_ok());
            } else {
                let at = below(&mut prng, whole.len());
                let mut bytes = whole[at].clone();
                mutate(&mut prng, &mut bytes);
                let tick = Tick::new(9);
                if decoder
                    .decode_whole(&mut shapes, tick, &refs, &bytes, &mut out)
                    .is_ok()
                {
                    accepted += 1;
                    assert!(
                        is_sound(&layout, &shapes, &out),
                        "seed {seed}: {bytes:02x?}"
                    );
                } else {
                    refused += 1;
                }
            }
        }
        whole.clear();
    }
    assert!(
        refused > accepted && accepted > 0,
        "{refused} refused, {accepted} accepted"
    );
}

/// Eight moments of a world with so many things, of a schema from `seed`.
fn history(
    seed: u64,
    things: usize,
    hides: bool,
    restlessness: u64,
) -> (Arc<WireLayout>, World, Vec<Moment>) {
    let mut prng = Prng::new(seed);
    let layout = Arc::new(WireLayout::new(&random_schema(&mut prng)));
    let mut host = World::new(Arc::clone(&layout), 4, things, hides);
    let moments = (0..8).map(|_| host.step(restlessness)).collect();
    (layout, host, moments)
}

#[test]
fn bodies_fit_every_room_and_say_the_same() {
    let (layout, host, moments) = history(11, 30, true, 60);
    let views: Vec<View<'_>> = moments.iter().map(Moment::view).collect();
    let refs = references(&[2, 3, 6], &views[..7]);
    let mut encoder = Encoder::new(Arc::clone(&layout));
    let mut decoder = Decoder::new(Arc::clone(&layout));
    let expected = content(&layout, &host.shapes, views[7]);
    let mut rooms = 0;
    for room in 8..900 {
        let Some(whole) = bodies(&mut encoder, &host, &moments[7], &refs, room) else {
            continue;
        };
        rooms += 1;
        let mut shapes = host.shapes.clone();
        let mut got = Vec::new();
        for body in &whole {
            let mut part = QuantizedSnapshot::default();
            decoder
                .decode_whole(&mut shapes, Tick::new(1), &refs, body, &mut part)
                .unwrap_or_else(|error| panic!("room {room}: {error}"));
            got.extend(content(&layout, &shapes, View::all(&part)));
        }
        assert!(got == expected, "room {room}");
    }
    assert!(rooms > 700, "{rooms} rooms are large enough");
}

#[test]
fn a_tally_counts_all_bits() {
    let (layout, host, moments) = history(12, 60, false, 80);
    let views: Vec<View<'_>> = moments.iter().map(Moment::view).collect();
    let refs = references(&[1, 2, 5], &views[..7]);
    let mut encoder = Encoder::new(Arc::clone(&layout));
    let mut plain = Vec::new();
    encoder.encode_whole(
        &host.shapes,
        views[7],
        &refs,
        NetId::NONE,
        1 << 20,
        &mut plain,
    );
    assert!(encoder.tally().is_none());
    encoder.set_tally(true);
    let mut body = Vec::new();
    encoder.encode_whole(
        &host.shapes,
        views[7],
        &refs,
        NetId::NONE,
        1 << 20,
        &mut body,
    );
    assert_eq!(plain, body, "counting changes nothing");
    let bits: f64 = encoder
        .tally()
        .expect("it was switched on")
        .iter()
        .map(|(_, bits)| bits)
        .sum();
    let all = body.len() as f64 * 8.0;
    assert!((bits - all).abs() < 0.05 * all, "{bits} of {all} bits");
}
