use super::*;
use crate::prng::Prng;
use crate::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Quantizer, Snapshot, Visibility,
};

const HZ: u16 = 60;
const SNAPSHOT_TICKS: u32 = 3;

struct Scene {
    schema: Schema,
    layout: WireLayout,
    shapes: Shapes,
}

impl Scene {
    fn new() -> Self {
        let schema = Schema::new(vec![KindSchema {
            name: "Position".to_owned(),
            version: 1,
            shape: KindShape::Component,
            visibility: Visibility::Client,
            fields: vec![FieldSchema::new("0", ExactType::F32)],
        }])
        .unwrap();
        let layout = WireLayout::new(&schema);
        Self {
            schema,
            layout,
            shapes: Shapes::default(),
        }
    }

    /// Entity 1 moves by 1 per tick, entity 2 lives from tick 60 to 119.
    fn at(&mut self, tick: Tick) -> Arc<QuantizedSnapshot> {
        let number = u16::try_from(tick.number()).unwrap();
        let mut rows = KindRows::default();
        rows.push(NetId::from_bits(1), |out| {
            out.extend(f32::from(number).to_le_bytes());
        });
        if (60..120).contains(&number) {
            rows.push(NetId::from_bits(2), |out| out.extend(5_f32.to_le_bytes()));
        }
        let snapshot = Snapshot {
            tick,
            kinds: vec![rows],
        };
        let mut out = QuantizedSnapshot::default();
        let (layout, shapes) = (&self.layout, &mut self.shapes);
        Quantizer::default().quantize(layout, shapes, &snapshot, None, &mut out);
        Arc::new(out)
    }

    fn shown(&self, view: &View, id: u64) -> Option<f32> {
        let tables = Tables {
            layout: &self.layout,
            shapes: &self.shapes,
        };
        let mut row = Vec::new();
        let is_shown = view.row(tables, NetId::from_bits(id), 0, &mut row);
        is_shown.then(|| f32::from_le_bytes(row.try_into().unwrap()))
    }
}

/// Plays snapshots whose arrival `arrival` says (none for lost ones), and tells after each shown
/// moment: the time in microseconds, the view.
fn play(
    scene: &mut Scene,
    ticks: u32,
    mut arrival: impl FnMut(u64) -> Option<u64>,
    mut look: impl FnMut(&Scene, u64, &View),
) {
    let mut view = View::new(&scene.schema, TickRate::new(HZ).unwrap());
    let mut coming: Vec<(u64, Tick)> = Vec::new();
    for tick in (0..ticks).step_by(SNAPSHOT_TICKS as usize) {
        let sent = u64::from(tick) * 1_000_000 / u64::from(HZ);
        if let Some(at) = arrival(sent) {
            coming.push((at, Tick::new(tick)));
        }
    }
    coming.sort_unstable();
    let mut held: VecDeque<(Tick, Time, Arc<QuantizedSnapshot>)> = VecDeque::new();
    let mut coming = coming.into_iter().peekable();
    // Frames at 144 Hz.
    let end = u64::from(ticks) * 1_000_000 / u64::from(HZ);
    for now in (0..end).step_by(6_944) {
        while let Some((at, tick)) = coming.next_if(|&(at, _)| at <= now) {
            if held.back().is_none_or(|held| held.0 < tick) {
                if held.len() >= 12 {
                    held.pop_front();
                }
                held.push_back((tick, Time::from_micros(at), scene.at(tick)));
            }
        }
        let received = held
            .iter()
            .map(|(tick, at, snapshot)| (*tick, *at, snapshot));
        view.update(Time::from_micros(now), received);
        look(scene, now, &view);
    }
}

/// How evenly entity 1 is shown to move, after some settling: the part of the frames that are off
/// by a fifth of a tick from the even motion, and by how many ticks it lies behind at most.
fn evenness(arrival: impl FnMut(u64) -> Option<u64>) -> (f32, f32) {
    let mut scene = Scene::new();
    let mut before: Option<(u64, f32)> = None;
    let (mut uneven, mut frames, mut behind) = (0_u16, 0_u16, 0_f32);
    play(&mut scene, 1500, arrival, |scene, now, view| {
        let Some(shown) = scene.shown(view, 1) else {
            return;
        };
        let present = (now as f32) * f32::from(HZ) / 1e6;
        if let Some((then, place)) = before
            && now > 1_500_000
        {
            let even = (now - then) as f32 * f32::from(HZ) / 1e6;
            frames += 1;
            uneven += u16::from((shown - place - even).abs() > 0.2);
            behind = behind.max(present - shown);
        }
        before = Some((now, shown));
    });
    (f32::from(uneven) / f32::from(frames), behind)
}

#[test]
fn steady_arrivals_are_shown_evenly_and_as_soon_as_possible() {
    let (uneven, behind) = evenness(|sent| Some(sent + 40_000));
    assert!(uneven == 0.0, "{uneven}");
    // 40 ms of path, the 50 ms between snapshots, and the little that is waited for.
    assert!((5.4..6.2).contains(&behind), "{behind}");
}

#[test]
fn jitter_and_loss_are_waited_for_and_the_motion_stays_even() {
    let seed = 5;
    let mut prng = Prng::new(seed);
    let (uneven, behind) = evenness(|sent| Some(sent + 30_000 + prng.below(30_000)));
    assert!(uneven < 0.01, "seed {seed}: {uneven}");
    assert!((5.0..8.0).contains(&behind), "seed {seed}: {behind}");
    let (uneven, behind) = evenness(|sent| {
        let is_lost = prng.below(100) < 8;
        (!is_lost).then_some(sent + 30_000 + prng.below(10_000))
    });
    assert!(uneven < 0.02, "seed {seed}: {uneven}");
    assert!((7.5..13.0).contains(&behind), "seed {seed}: {behind}");
}

#[test]
fn entities_come_and_go_with_their_ticks_and_values_lie_between() {
    let mut scene = Scene::new();
    let mut seen = (0, 0);
    play(
        &mut scene,
        300,
        |sent| Some(sent + 20_000),
        |scene, _now, view| {
            let Some(Shown { tick, fraction }) = view.shown() else {
                return;
            };
            let tick = tick.number();
            let place = scene.shown(view, 1).unwrap();
            let expected = f32::from(u16::try_from(tick).unwrap()) + fraction;
            assert!(
                (place - expected).abs() < 0.01,
                "{place} at {tick} + {fraction}"
            );
            let lives = (60..120).contains(&tick);
            assert_eq!(scene.shown(view, 2).is_some(), lives, "tick {tick}");
            assert_eq!(view.ids().count(), 1 + usize::from(lives));
            assert_eq!(scene.shown(view, 3), None);
            if lives {
                seen.0 += 1;
            } else {
                seen.1 += 1;
            }
        },
    );
    assert!(seen.0 > 100 && seen.1 > 100);
}

#[test]
fn a_silence_holds_the_last_state_and_ends_with_a_jump() {
    let mut scene = Scene::new();
    let mut held = 0;
    let mut last = 0.0;
    play(
        &mut scene,
        600,
        |sent| (!(2_000_000..4_000_000).contains(&sent)).then_some(sent + 20_000),
        |scene, now, view| {
            let Some(place) = scene.shown(view, 1) else {
                return;
            };
            assert!(place >= last, "never backwards");
            last = place;
            if (2_300_000..4_000_000).contains(&now) {
                assert!((place - 117.0).abs() < 0.01, "{place}");
                held += 1;
            }
            if now > 4_500_000 {
                let present = now as f32 * f32::from(HZ) / 1e6;
                assert!(present - place < 7.0, "{place} at {present}");
            }
        },
    );
    assert!(held > 200);
}
