//! Bodies, as chapters 10.6 to 10.8 of the document have them.

use std::collections::BTreeMap;

use super::coder::{Coder, Tables, Wrong};
use super::layout::{FLAGS, Group, HALVES, IDS, Kind, NUMBERS, ROTATIONS, VECTORS};
use super::rotation;

/// What is known of one entity: lanes by kind, and opaque bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entity {
    pub(super) kinds: BTreeMap<u64, Vec<i64>>,
    pub(super) opaque: Vec<u8>,
}

pub(super) type State = BTreeMap<u64, Entity>;

/// What a body is read with.
pub(super) struct Document<'a> {
    pub(super) tables: &'a Tables,
    /// By number; `None` for those that clients do not get.
    pub(super) kinds: &'a [Option<Kind>],
}

/// A state that the receiver holds, and its age in snapshots.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) age: i64,
    pub(super) state: &'a State,
}

/// An entity's past: the base and up to two older values, with their ages.
struct Past<'a> {
    base: &'a Entity,
    age: i64,
    near: Option<(i64, &'a Entity)>,
    far: Option<(i64, &'a Entity)>,
}

/// A place that was coded before in the same body.
#[derive(Clone, Copy)]
struct Place {
    at: [f32; 3],
    residual: [i64; 3],
}

struct Body<'a, 'b> {
    document: &'a Document<'b>,
    coder: Coder<'b>,
    /// The new entity before.
    newest: Option<Entity>,
    places: Vec<Place>,
    next_place: usize,
}

/// What a whole body says: of ids from the first on, up to the next body's.
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) next: Option<u64>,
    pub(super) entities: State,
}

fn floor_log2(value: u64) -> i64 {
    i64::from(63 - value.leading_zeros())
}

/// `h` of the document.
pub(super) fn half_octaves(value: i64) -> i64 {
    if value < 2 {
        return value;
    }
    let value = u64::try_from(value).unwrap();
    let log = floor_log2(value);
    let below = i64::from(value >> (log - 1) & 1 == 1);
    2 * log + below
}

fn saturated(value: i64) -> i64 {
    value.min(i64::from(u32::MAX))
}

/// What is expected of a lane: the step, the scale.
fn step(group: &Group, tables: &Tables, base: i64, past: &[(i64, i64)], age: i64) -> (i64, usize) {
    let wrapping = |value: i64| {
        let [a, b, c, d, ..] = value.to_le_bytes();
        i64::from(i32::from_le_bytes([a, b, c, d]))
    };
    let speed = |(gap, value): (i64, i64)| (wrapping(base - value) * (4096 * age / gap)) >> 8;
    let course = |bend: i64| tables.courses[group.family * 16 + usize::try_from(bend).unwrap()];
    let (step, scale) = match past {
        [] => (0, 15),
        [one] => {
            let v = speed(*one);
            let u = saturated((v >> 4).abs());
            let [_, _, alone] = course(half_octaves(u).min(15));
            let scale = half_octaves(saturated(u / 4 + u / 8)).min(14);
            ((((v * alone) >> 12) + 8) >> 4, scale)
        }
        [near, far, ..] => {
            let (v_near, v_far) = (speed(*near), speed(*far));
            let c = v_near - v_far;
            let u = saturated((c >> 4).abs());
            let [velocity, bend, _] = course(half_octaves(u).min(15));
            let scale = half_octaves(saturated(u + saturated((v_far >> 4).abs()) / 8)).min(14);
            let k = 256 * (age + near.0) / (far.0 - near.0).max(1);
            let f = (c * k) >> 8;
            let step = (((v_near * velocity + f * bend) >> 12) + 8) >> 4;
            (step, scale)
        }
    };
    let scale = usize::try_from(scale).unwrap();
    (if group.is_last { 0 } else { step }, scale)
}

/// How far the last residuals were off: sizes by weight.
#[derive(Clone, Copy, Default)]
pub(super) struct Surprise {
    sum: i64,
    weight: i64,
}

impl Surprise {
    pub(super) fn count(&mut self, size: i64, weight: i64) {
        self.sum += size * weight;
        self.weight += weight;
    }

    pub(super) fn class(self) -> usize {
        if self.weight == 0 {
            return 0;
        }
        let mean = u64::try_from(self.sum / self.weight).unwrap();
        1 + usize::try_from(64 - mean.leading_zeros()).unwrap().min(6)
    }
}

pub(super) fn residual(coder: &mut Coder<'_>, family: usize, scale: usize, surprise: usize) -> i64 {
    let symbol = coder.symbol((family * 16 + scale) * 8 + surprise);
    let signed = |size: u64, negative: bool| {
        let size = i64::try_from(size).unwrap();
        if negative { -size } else { size }
    };
    match symbol {
        0 => 0,
        1..=16 => signed(u64::from(symbol).div_ceil(2), symbol.is_multiple_of(2)),
        17..=48 => {
            let (o, h, s) = ((symbol - 17) / 4, (symbol - 17) / 2 % 2, (symbol - 17) % 2);
            let size = (1 << (o + 3)) + (u64::from(h) << (o + 2)) + coder.plain(o + 2) + 1;
            signed(size, s == 1)
        }
        _ => {
            let o = symbol - 49;
            let negative = coder.uniform(1) == 1;
            let size = (1 << (o + 11)) + coder.plain(o + 11) + 1;
            signed(size, negative)
        }
    }
}

fn wrap32(value: i64) -> i64 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i64::from(i32::from_le_bytes([a, b, c, d]))
}

impl Body<'_, '_> {
    fn id(&mut self, last: Option<u64>) -> Result<u64, Wrong> {
        let gap = self.coder.gamma();
        match last {
            None => Ok(gap),
            Some(last) => last
                .checked_add(gap)
                .and_then(|id| id.checked_add(1))
                .ok_or("an id beyond 64 bits"),
        }
    }

    fn kinds(&mut self, expected: &[u64]) -> Result<Vec<u64>, Wrong> {
        if !self.coder.flag(25) {
            return Ok(expected.to_vec());
        }
        let mut kinds: Vec<u64> = Vec::new();
        for &kind in expected {
            if self.coder.uniform(1) == 1 {
                kinds.push(kind);
            }
        }
        let mut last: Option<u64> = None;
        while self.coder.uniform(1) == 1 {
            let gap = self.coder.gamma();
            let kind = last.map_or(gap, |last| last + 1 + gap);
            let is_known = usize::try_from(kind).is_ok_and(|kind| kind < self.document.kinds.len());
            if !is_known || self.kind(kind).is_none() || expected.contains(&kind) {
                return Err("a kind that cannot be");
            }
            kinds.push(kind);
            last = Some(kind);
        }
        kinds.sort_unstable();
        Ok(kinds)
    }

    fn kind(&self, kind: u64) -> Option<&Kind> {
        self.document.kinds[usize::try_from(kind).unwrap()].as_ref()
    }

    fn plain(&mut self, group: &Group) -> Result<Vec<i64>, Wrong> {
        let mut values = Vec::new();
        for lane in &group.lanes {
            let raw = i64::try_from(self.coder.plain(lane.bits())).unwrap();
            if raw > lane.max - lane.min {
                return Err("a lane beyond its bounds");
            }
            values.push(lane.min + raw);
        }
        Ok(values)
    }

    /// The values of an entity.
    fn values(&mut self, past: Option<&Past<'_>>) -> Result<Entity, Wrong> {
        let before = self.newest.take();
        let known = past.map(|past| past.base).or(before.as_ref());
        let expected: Vec<u64> =
            known.map_or_else(Vec::new, |it| it.kinds.keys().copied().collect());
        let kinds = self.kinds(&expected)?;
        let mut entity = Entity::default();
        let mut has_changed = None;
        let mut surprise = 0;
        let mut positions = 0;
        let mut is_opaque = false;
        for kind in kinds {
            let layout = self
                .kind(kind)
                .ok_or("a kind that clients do not get")?
                .clone();
            is_opaque |= layout.is_opaque;
            let mut lanes = Vec::new();
            let old = past.and_then(|past| past.base.kinds.get(&kind));
            for group in &layout.groups {
                let from = lanes.len();
                let to = from + group.lanes.len();
                let values = match (old, past) {
                    (Some(old), Some(past)) => {
                        let base = &old[from..to];
                        let part = |held: Option<(i64, &Entity)>| {
                            let (age, entity) = held?;
                            let lanes = entity.kinds.get(&kind)?;
                            Some(((age - past.age).max(1), lanes[from..to].to_vec()))
                        };
                        let (near, far) = (part(past.near), part(past.far));
                        let differs = |it: &Option<(i64, Vec<i64>)>| {
                            it.as_ref().is_some_and(|(_, lanes)| lanes != base)
                        };
                        let moved = match (&near, &far) {
                            (None, None) => 3,
                            _ if differs(&near) => 2,
                            _ if differs(&far) => 1,
                            _ => 0,
                        };
                        let before = match has_changed {
                            None => 0,
                            Some(false) => 1,
                            Some(true) => 2,
                        };
                        let changes = self.coder.flag(27 + 12 * group.class + 3 * moved + before);
                        has_changed = Some(changes || has_changed == Some(true));
                        let is_first_position = group.per_unit.is_some() && positions == 0;
                        positions += usize::from(group.per_unit.is_some());
                        if changes {
                            let older: Vec<(i64, Vec<i64>)> = near.into_iter().chain(far).collect();
                            self.changed(
                                group,
                                base,
                                &older,
                                past.age,
                                is_first_position,
                                &mut surprise,
                            )?
                        } else {
                            base.to_vec()
                        }
                    }
                    (_, Some(_)) => self.plain(group)?,
                    (_, None) => {
                        let same = before.as_ref().and_then(|it| it.kinds.get(&kind));
                        match same {
                            Some(same) if self.coder.flag(136 + group.class) => {
                                same[from..to].to_vec()
                            }
                            Some(_) | None => self.plain(group)?,
                        }
                    }
                };
                lanes.extend(values);
            }
            entity.kinds.insert(kind, lanes);
        }
        if is_opaque {
            let known = past.map(|past| past.base).or(before.as_ref());
            entity.opaque = match known {
                Some(known) if !self.coder.flag(26) => known.opaque.clone(),
                Some(_) | None => {
                    let count = self.coder.gamma();
                    let bytes: Vec<u8> = (0..count)
                        .map(|_| u8::try_from(self.coder.uniform(8)).unwrap())
                        .collect();
                    if self.coder.uniform(1) != 1 {
                        return Err("opaque bytes without their end");
                    }
                    bytes
                }
            };
        }
        self.newest = match past {
            None => Some(entity.clone()),
            Some(_) => before,
        };
        Ok(entity)
    }

    /// A group that the base has, and that changed.
    fn changed(
        &mut self,
        group: &Group,
        base: &[i64],
        older: &[(i64, Vec<i64>)],
        age: i64,
        is_first_position: bool,
        position_surprise: &mut usize,
    ) -> Result<Vec<i64>, Wrong> {
        let tables = self.document.tables;
        match group.class {
            FLAGS | HALVES | IDS => {
                let [lane] = &group.lanes[..] else {
                    return Err("a group of these classes is one lane");
                };
                if lane.bits() == 1 {
                    return Ok(vec![lane.min + lane.max - base[0]]);
                }
                return self.plain(group);
            }
            ROTATIONS => {
                return rotation::read(
                    &mut self.coder,
                    tables,
                    group,
                    base,
                    older,
                    age,
                    *position_surprise,
                );
            }
            VECTORS | NUMBERS => {}
            _ => return Err("no class"),
        }
        // Beside the first, positions are vectors as any other.
        let near_ones = is_first_position && !group.is_last;
        let family = if group.class == NUMBERS {
            2
        } else if near_ones {
            0
        } else {
            1
        };
        let group = &Group {
            family,
            ..group.clone()
        };
        let mut surprise = Surprise::default();
        let reach = group
            .per_unit
            .map_or(1.0, |per_unit| (1.25 * per_unit).clamp(1.0, 1e6));
        let mut at = [0_f32; 3];
        for (at, &lane) in at.iter_mut().zip(base) {
            *at = lane as f32;
        }
        let mut neighbours: Vec<&Place> = Vec::new();
        let mut classes = [8, 8];
        if near_ones {
            let found = self.near(at, reach as f32);
            for (index, (class, _)) in found.iter().enumerate() {
                classes[index] = *class;
            }
            neighbours = found
                .iter()
                .map(|(_, place)| &self.places[*place])
                .collect();
            if !neighbours.is_empty() {
                let sum: i64 = neighbours
                    .iter()
                    .flat_map(|place| place.residual.iter())
                    .map(|residual| residual.abs())
                    .sum();
                surprise.count(sum / (3 * neighbours.len() as i64), 2);
            }
        }
        let weights = tables.neighbours[9 * classes[0] + classes[1]];
        let mut values = Vec::new();
        let mut remembered = [0; 3];
        for (part, lane) in group.lanes.iter().enumerate() {
            let past: Vec<(i64, i64)> = older
                .iter()
                .map(|(gap, lanes)| (*gap, lanes[part]))
                .collect();
            let (step, scale) = step(group, tables, base[part], &past, age);
            let mut added = 0;
            if near_ones && part < 3 {
                let of = |index: usize| neighbours.get(index).map_or(0, |it| it.residual[part]);
                added = (of(0) * weights[0] + of(1) * weights[1] + 2048) >> 12;
            }
            let expected = (base[part] + step + added).clamp(lane.min, lane.max);
            let off = residual(&mut self.coder, family, scale, surprise.class());
            surprise.count(off.abs(), 4);
            let value = wrap32(expected + off);
            if value < lane.min || value > lane.max {
                return Err("a lane beyond its bounds");
            }
            if part < 3 {
                let most = (reach / 4.0).floor() as i64;
                remembered[part] = (value - base[part] - step).clamp(-most, most);
            }
            values.push(value);
        }
        if near_ones {
            *position_surprise = surprise.class();
            let place = Place {
                at,
                residual: remembered,
            };
            if self.places.len() < 128 {
                self.places.push(place);
            } else {
                self.places[self.next_place % 128] = place;
            }
            self.next_place += 1;
        }
        Ok(values)
    }

    /// The nearest two places within the reach: class of the distance, and index.
    fn near(&self, at: [f32; 3], reach: f32) -> Vec<(usize, usize)> {
        let mut found: Vec<(u32, f32, usize)> = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            let [x, y, z] = [0, 1, 2].map(|axis| at[axis] - place.at[axis]);
            let bits = (x * x + y * y + z * z + 1.0).to_bits();
            let key = bits & !127 | u32::try_from(index).unwrap();
            let square = f32::from_bits(key) - 1.0;
            if square < reach * reach {
                found.push((key, square, index));
            }
        }
        found.sort_by_key(|(key, ..)| *key);
        found
            .iter()
            .take(2)
            .map(|(_, square, index)| {
                let class = (square / (reach * reach) * 8.0).floor() as usize;
                (class.min(7), *index)
            })
            .collect()
    }
}

fn value_of<'s>(held: Option<&Held<'s>>, id: u64) -> Option<(i64, &'s Entity)> {
    let held = held?;
    Some((held.age, held.state.get(&id)?))
}

impl<'b> Document<'b> {
    fn body<'a>(&'a self, bytes: &'b [u8]) -> Body<'a, 'b> {
        Body {
            document: self,
            coder: Coder::new(bytes, self.tables),
            newest: None,
            places: Vec::new(),
            next_place: 0,
        }
    }

    /// A whole body; the base is the first reference.
    pub(super) fn whole(&self, bytes: &'b [u8], references: &[Held<'_>]) -> Result<Range, Wrong> {
        let mut body = self.body(bytes);
        let empty = State::new();
        let base = references.first().map_or(&empty, |base| base.state);
        let mut older: Vec<Held<'_>> = references.iter().skip(1).copied().collect();
        older.sort_by_key(|held| held.age);
        let is_split = body.coder.flag(132);
        let first = if is_split { body.id(None)? } else { 0 };
        let middle = body.coder.flag(133);
        let of_base: Vec<(u64, &Entity)> = base.range(first..).map(|(id, it)| (*id, it)).collect();
        let ages: Vec<usize> = of_base
            .iter()
            .map(|(id, entity)| match &older[..] {
                [] => 3,
                [.., oldest] if oldest.state.get(id) == Some(entity) => 2,
                [near, _] if near.state.get(id) == Some(entity) => 1,
                _ => 0,
            })
            .collect();
        let mut range = Range {
            first,
            next: None,
            entities: State::new(),
        };
        let mut last = None;
        let (mut at, mut previous, mut block) = (0, 0, 0);
        loop {
            if is_split && body.coder.flag(135) {
                range.next = Some(body.id(last)?);
                break;
            }
            let Some(&(id, entity)) = of_base.get(at) else {
                if body.coder.uniform(1) == 0 {
                    break;
                }
                let id = body.id(last)?;
                range.entities.insert(id, body.values(None)?);
                last = Some(id);
                continue;
            };
            if middle && body.coder.flag(134) {
                let new = body.id(last)?;
                if new >= id {
                    return Err("a new entity behind the base's next");
                }
                range.entities.insert(new, body.values(None)?);
                last = Some(new);
                continue;
            }
            let quiet = ages.get(at..at + 16);
            if at % 16 == 0 && quiet.is_some_and(|ages| ages.iter().all(|&age| age == 2)) {
                block = usize::from(body.coder.flag(145 + block));
                if block == 0 {
                    for &(id, entity) in &of_base[at..at + 16] {
                        range.entities.insert(id, entity.clone());
                        last = Some(id);
                    }
                    at += 16;
                    previous = 0;
                    continue;
                }
            }
            let next = usize::from(ages.get(at + 1).is_some_and(|&age| age < 2));
            let changed = body.coder.flag(4 * ages[at] + 2 * previous + next);
            previous = usize::from(changed);
            last = Some(id);
            if !changed {
                range.entities.insert(id, entity.clone());
            } else if !body.coder.flag(24) {
                let (near, far) = (value_of(older.first(), id), value_of(older.get(1), id));
                let past = Past {
                    base: entity,
                    age: references[0].age,
                    near,
                    far,
                };
                range.entities.insert(id, body.values(Some(&past))?);
            }
            at += 1;
        }
        body.coder.end()?;
        Ok(range)
    }

    /// The items of a part body: ids, and values where the entity is not gone. `held` gives what is
    /// known of an entity as of so many snapshots before.
    pub(super) fn part(
        &self,
        bytes: &'b [u8],
        held: impl Fn(u64, i64) -> Option<Entity>,
    ) -> Result<Vec<(u64, Option<Entity>)>, Wrong> {
        let mut body = self.body(bytes);
        let mut items = Vec::new();
        let mut last = None;
        let mut ages: Option<Vec<i64>> = Some(Vec::new());
        loop {
            if last.is_some() && body.coder.flag(142) {
                break;
            }
            let id = match last {
                Some(last) if body.coder.flag(143) => last - body.coder.gamma(),
                _ => body.id(last)?,
            };
            last = Some(id);
            if body.coder.flag(144) {
                ages = match body.coder.uniform(2) {
                    0 => None,
                    count => {
                        let mut ages = Vec::new();
                        let mut before = 0;
                        for _ in 1..count {
                            before += i64::try_from(body.coder.gamma()).unwrap() + 1;
                            ages.push(before);
                        }
                        Some(ages)
                    }
                };
            }
            let Some(ages) = &ages else {
                items.push((id, None));
                continue;
            };
            let mut known = Vec::new();
            for &age in ages {
                let entity = held(id, age).ok_or("a reference that is not held")?;
                known.push((age, entity));
            }
            let value = match &known[..] {
                [] => body.values(None)?,
                [(age, base), rest @ ..] => body.values(Some(&Past {
                    base,
                    age: *age,
                    near: rest.first().map(|(age, entity)| (*age, entity)),
                    far: None,
                }))?,
            };
            items.push((id, Some(value)));
        }
        body.coder.end()?;
        Ok(items)
    }
}
