//! Input batches, as chapter 5 of the document has them.

use std::collections::BTreeMap;

use super::coder::{Chance, Stream, Wrong};

/// An input, or `None` where the slot is absent.
pub(super) type Input = Option<Vec<u8>>;

/// What one end knows of one slot: contiguous from the tick after its start.
#[derive(Clone, Default)]
pub(super) struct History {
    pub(super) newest: u32,
    pub(super) inputs: BTreeMap<u32, Input>,
}

#[derive(Clone)]
struct Cursor {
    present: bool,
    value: Vec<u8>,
    since: u32,
    age: usize,
}

/// The model of one slot.
pub(super) struct Model {
    pub(super) tick: u32,
    cursor: Cursor,
    chances: Vec<Chance>,
}

/// Reads or learns one decision of a model: gives the bit.
trait Decide {
    fn decide(&mut self, index: usize, bit: Option<bool>) -> bool;
}

struct Reading<'a, 'b> {
    stream: &'a mut Stream<'b>,
    chances: &'a [Chance],
}

impl Decide for Reading<'_, '_> {
    fn decide(&mut self, index: usize, _bit: Option<bool>) -> bool {
        self.stream.bit(self.chances[index])
    }
}

struct Learning<'a>(&'a mut [Chance]);

impl Decide for Learning<'_> {
    fn decide(&mut self, index: usize, bit: Option<bool>) -> bool {
        let bit = bit.expect("what is learned is known");
        self.0[index].learn(bit);
        bit
    }
}

/// A set of the places 0 to `last`; `known` is the set when it is learned.
fn set(decide: &mut impl Decide, base: usize, last: usize, known: Option<u64>) -> u64 {
    let has = |place: usize| known.map(|set| set >> place & 1 == 1);
    let mut first = 0;
    while first < last && !decide.decide(base + 3 * first, has(first)) {
        first += 1;
    }
    let mut members = 1 << first;
    let more = known.map(|set| set >> first != 1);
    if first == last || !decide.decide(base + 3 * first + 1, more) {
        return members;
    }
    for place in first + 1..=last {
        let is_only_choice = place == last && members == 1 << first;
        if is_only_choice || decide.decide(base + 3 * place + 2, has(place)) {
            members |= 1 << place;
        }
    }
    members
}

impl Cursor {
    fn changed_chance(&self) -> usize {
        self.age + if self.present { 0 } else { 8 }
    }

    fn is(&self, input: &Input) -> bool {
        match input {
            Some(bytes) => self.present && self.value == *bytes,
            None => !self.present,
        }
    }

    /// Step 6.
    fn grow_older(&mut self, changed: bool) {
        if changed {
            self.age = usize::from(self.since > 0);
            self.since = 0;
            return;
        }
        self.since = (self.since + 1).min(255);
        self.age = match self.since {
            1 => 2,
            2 => 3,
            3 | 4 => 4,
            5..=8 => 5,
            9..=20 => 6,
            _ => 7,
        };
    }

    /// Steps 3 to 5 of a change, read from `decide` or learned towards `to`.
    fn change(&mut self, decide: &mut impl Decide, to: Option<&Input>) {
        let size = self.value.len();
        if self.present {
            if decide.decide(16, to.map(Option::is_none)) {
                self.present = false;
                return;
            }
        } else {
            self.present = true;
            let moved = to.map(|to| to.as_ref() != Some(&self.value));
            if !decide.decide(17, moved) {
                return;
            }
        }
        let flips: Option<Vec<u8>> = to.map(|to| {
            let to = to.as_ref().expect("a value, since it is present");
            self.value.iter().zip(to).map(|(a, b)| a ^ b).collect()
        });
        let mask = flips
            .as_ref()
            .map(|flips| (0..size).fold(0, |mask, at| mask | u64::from(flips[at] != 0) << at));
        let changed = set(decide, 18, size - 1, mask);
        for at in (0..size).filter(|at| changed >> at & 1 == 1) {
            let known = flips.as_ref().map(|flips| u64::from(flips[at]));
            let flipped = set(decide, 18 + 3 * (size + 8 * at), 7, known);
            self.value[at] ^= u8::try_from(flipped).unwrap();
        }
    }
}

impl Model {
    pub(super) fn new(size: usize, start: u32) -> Self {
        let mut chances = vec![Chance::one_in(8); 8];
        chances.extend([Chance::one_in(16); 9]);
        chances.push(Chance::one_in(2));
        chances.resize(18 + 3 * (size + 8 * size), Chance::one_in(6));
        Self {
            tick: start,
            cursor: Cursor {
                present: false,
                value: vec![0; size],
                since: 255,
                age: 7,
            },
            chances,
        }
    }

    /// Learns ticks up to `base`.
    fn advance(&mut self, base: u32, history: &History) -> Result<(), Wrong> {
        while self.tick < base {
            self.tick += 1;
            let input = history.inputs.get(&self.tick).ok_or("a gap in history")?;
            let changed = !self.cursor.is(input);
            self.chances[self.cursor.changed_chance()].learn(changed);
            if changed {
                let mut learning = Learning(&mut self.chances);
                self.cursor.change(&mut learning, Some(input));
            }
            self.cursor.grow_older(changed);
        }
        Ok(())
    }

    fn read(&self, cursor: &mut Cursor, stream: &mut Stream<'_>) {
        let changed = stream.bit(self.chances[cursor.changed_chance()]);
        if changed {
            if stream.bit(Chance::one_in(256)) {
                cursor.present = true;
                for byte in &mut cursor.value {
                    *byte = u8::try_from(stream.uniform(8)).unwrap();
                }
            } else {
                let mut reading = Reading {
                    stream,
                    chances: &self.chances,
                };
                cursor.change(&mut reading, None);
            }
        }
        cursor.grow_older(changed);
    }
}

/// What is known before the first bit of a batch.
pub(super) struct Plan<'a> {
    pub(super) slots: Vec<usize>,
    pub(super) reference: u32,
    pub(super) uneven: bool,
    /// By slot.
    pub(super) expected: Vec<u32>,
    /// The receiver's slot and what it sent.
    pub(super) own: Option<(usize, &'a History)>,
}

fn steps(first: u32, second: u32, count: usize) -> Vec<Chance> {
    let mut chances = vec![Chance::one_in(2); count];
    chances[0] = Chance::one_in(first);
    chances[1] = Chance::one_in(second);
    chances
}

/// Reads a batch into `histories`; false if it is stale.
pub(super) fn read(
    plan: &Plan<'_>,
    bytes: &[u8],
    models: &mut [Model],
    histories: &mut [History],
) -> Result<bool, Wrong> {
    let Some(&first) = plan.slots.first() else {
        return Stream::new(bytes).end().map(|()| true);
    };
    let stream = &mut Stream::new(bytes);
    let differ = if plan.uneven {
        Chance::one_in(2)
    } else {
        Chance::one_in(64)
    };
    let spreads = steps(2, 4, 11);

    let mut bases = plan.expected.clone();
    if stream.bit(Chance::one_in(32)) {
        let distances: Vec<Chance> = [63500, 62000, 49000, 28000, 20000]
            .map(Chance::new)
            .into_iter()
            .chain([Chance::one_in(4); 6])
            .collect();
        let distance = stream.number(&distances);
        let mut base = i64::from(plan.reference) - i64::from(distance);
        bases[first] = u32::try_from(base).map_err(|_| "a base before tick 0")?;
        let differs = plan.slots.len() > 1 && stream.bit(differ);
        for &slot in &plan.slots[1..] {
            if differs {
                let zigzag = i64::from(stream.number(&steps(2, 4, 12)));
                base += if zigzag % 2 == 1 {
                    -(zigzag + 1) / 2
                } else {
                    zigzag / 2
                };
            }
            bases[slot] = u32::try_from(base).map_err(|_| "a base that is no tick")?;
        }
    }
    for &slot in &plan.slots {
        if bases[slot] > histories[slot].newest {
            return Err("a base that is newer than what is held");
        }
        if bases[slot] < models[slot].tick {
            return Ok(false);
        }
    }
    for &slot in &plan.slots {
        models[slot].advance(bases[slot], &histories[slot])?;
    }

    let mut newest = vec![0; histories.len()];
    let mut end = |slot: usize, offset: u32| {
        let tick = plan
            .reference
            .checked_sub(offset)
            .ok_or("a run before tick 0")?;
        if tick < bases[slot] || tick - bases[slot] > 1024 {
            return Err("a run that ends before it begins, or too late");
        }
        newest[slot] = tick;
        Ok(())
    };
    if plan.slots.len() > 1 && stream.bit(differ) {
        let mut absent = 0;
        for &slot in &plan.slots {
            let offset = if models[slot].cursor.present {
                stream.number(&spreads)
            } else {
                if stream.bit(Chance::one_in(32)) {
                    absent = stream.number(&spreads);
                }
                absent
            };
            end(slot, offset)?;
        }
    } else {
        let mut offsets = vec![Chance::one_in(2); 11];
        offsets[0] = Chance::one_in(64);
        let offset = stream.number(&offsets);
        for &slot in &plan.slots {
            end(slot, offset)?;
        }
    }

    let own = plan.own.as_ref().map(|(slot, _)| *slot);
    let mut idle: Vec<usize> = plan.slots.clone();
    idle.retain(|&slot| {
        Some(slot) != own && newest[slot] > bases[slot] && !models[slot].cursor.present
    });
    if !idle.is_empty() && stream.bit(Chance::one_in(128)) {
        idle.retain(|_| !stream.bit(Chance::one_in(4)));
    }

    let mut runs: Vec<(usize, u32, Input)> = Vec::new();
    for &slot in &plan.slots {
        let ticks = bases[slot] + 1..=newest[slot];
        if idle.contains(&slot) {
            runs.extend(ticks.map(|tick| (slot, tick, None)));
            continue;
        }
        let mut cursor = models[slot].cursor.clone();
        let own = plan.own.as_ref().filter(|(own, _)| *own == slot);
        let some_replaced = own.is_some() && !ticks.is_empty() && stream.bit(Chance::one_in(64));
        let mut after_replaced = false;
        for tick in ticks {
            if let Some((_, sent)) = own {
                let chance = Chance::one_in(if after_replaced { 2 } else { 4 });
                after_replaced = some_replaced && stream.bit(chance);
                if after_replaced {
                    models[slot].read(&mut cursor, stream);
                } else {
                    let input = sent.inputs.get(&tick).filter(|input| input.is_some());
                    let input = input.ok_or("an accepted input that was never sent")?;
                    let changed = !cursor.is(input);
                    cursor.present = true;
                    cursor.value.clone_from(input.as_ref().unwrap());
                    cursor.grow_older(changed);
                }
            } else {
                models[slot].read(&mut cursor, stream);
            }
            runs.push((slot, tick, cursor.present.then(|| cursor.value.clone())));
        }
    }
    core::mem::replace(stream, Stream::new(&[])).end()?;
    for (slot, tick, input) in runs {
        let history = &mut histories[slot];
        if tick > history.newest {
            history.newest = tick;
            history.inputs.insert(tick, input);
        } else if history.inputs.get(&tick) != Some(&input) {
            return Err("an input that differs from before");
        }
    }
    Ok(true)
}
