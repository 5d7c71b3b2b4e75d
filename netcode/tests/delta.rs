//! The state codec: bodies say exactly what the snapshots hold, and wrong bytes do no harm.

#[path = "delta/world.rs"]
mod world;

use std::sync::Arc;

use phalanx_netcode::delta::{
    Decoder, Encoder, PartItem, PartState, Reference, Span, View, WholeEnd,
};
use phalanx_netcode::id::NetId;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{EntityRef, QuantizedSnapshot, ShapeId, Shapes, WireLayout};
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
