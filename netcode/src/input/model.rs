//! What is likely of one slot's next input, learned from those before.
//!
//! A model is a pure function of the slot's history from its start up to [`SlotModel::tick`], so
//! two nodes that agree on a tick agree on the model without a word. Within a datagram it does not
//! learn; only its [`Cursor`] moves along.
//!
//! One tick is coded as: has it changed? If so, has the slot become absent (or, of an absent slot:
//! is its value another than the last one)? Which bytes changed, and which of their bits? The last
//! two are sets with at least one member, coded alike: the first member, whether there are more,
//! and only then the rest; so a button costs few decisions.

use super::history::same_bytes;
use crate::limits::INPUT_BYTES_MAX;
use crate::tick::Tick;
use crate::wire::range::{Bit, Decoder, Encoder, UNIFORM_BITS_MAX};

/// Contexts of "changed": by age, and by presence.
const AGES: usize = 8;

/// First context of "changed" for present slots; [`AGES`] of them.
const CHANGED: usize = 0;
/// First context of "changed" for absent slots; [`AGES`] of them.
const CHANGED_ABSENT: usize = AGES;
/// A present slot that changed has become absent.
const VANISHED: usize = 2 * AGES;
/// An absent slot that became present has another value than it had last.
const MOVED: usize = 2 * AGES + 1;
/// First context of the set of changed bytes, then of the set of flipped bits of each byte.
const SETS: usize = 2 * AGES + 2;

/// Contexts of one place in a set: is it the first member; are there more after the first; is it
/// one of those.
const PER_PLACE: usize = 3;
const FIRST: usize = 0;
const MORE: usize = 1;
const REST: usize = 2;

/// A changed value is coded by its contexts unless they are so wrong that its plain bytes are
/// shorter. This chance is fixed: it depends on the coder, not on the history.
const PLAIN: Bit = Bit::one_in(256);

/// Where the coding of a slot stands: its value, and what contexts depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The newest value while the slot was present; zero before that.
    value: [u8; INPUT_BYTES_MAX],
    present: bool,
    /// Context by ticks since the last change: 0 just now and the tick before too, 1 just now,
    /// then further ago.
    age: u8,
    /// Ticks since the last change, saturating.
    since: u8,
}

impl Cursor {
    const START: Self = Self {
        value: [0; INPUT_BYTES_MAX],
        present: false,
        age: 7,
        since: u8::MAX,
    };

    /// Whether the slot is present.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.present
    }

    /// The value of `size` bytes, or `None` while the slot is absent.
    #[must_use]
    pub fn input(&self, size: usize) -> Option<&[u8]> {
        self.present.then(|| &self.value[..size])
    }

    /// Moves on by one tick to `input`.
    #[inline]
    pub fn follow(&mut self, input: Option<&[u8]>) {
        let changed = self.differs(input);
        if changed {
            self.take(input);
        }
        self.grow_older(changed);
    }

    #[inline]
    fn differs(&self, input: Option<&[u8]>) -> bool {
        match input {
            Some(bytes) => !self.present || !same_bytes(&self.value[..bytes.len()], bytes),
            None => self.present,
        }
    }

    fn take(&mut self, input: Option<&[u8]>) {
        self.present = input.is_some();
        if let Some(bytes) = input {
            self.value[..bytes.len()].copy_from_slice(bytes);
        }
    }

    #[inline]
    fn grow_older(&mut self, changed: bool) {
        if changed {
            self.age = u8::from(self.since > 0);
            self.since = 0;
        } else {
            self.since = self.since.saturating_add(1);
            self.age = match self.since {
                0..=2 => self.since + 1,
                3..=4 => 4,
                5..=8 => 5,
                9..=20 => 6,
                _ => 7,
            };
        }
    }

    #[inline]
    fn changed_context(&self) -> usize {
        usize::from(self.age)
            + if self.present {
                CHANGED
            } else {
                CHANGED_ABSENT
            }
    }
}

/// The learned chances of one slot, and its cursor at the tick up to which they were learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotModel {
    bits: Vec<Bit>,
    input_bytes: usize,
    tick: Tick,
    /// Whether it has learned nothing since its start, when its cursor may differ from the history
    /// before it.
    is_new: bool,
    cursor: Cursor,
}

impl SlotModel {
    /// A model that knows nothing, for a slot that starts after `tick`.
    ///
    /// # Panics
    /// If `input_bytes` exceeds [`INPUT_BYTES_MAX`].
    #[must_use]
    pub fn new(input_bytes: usize, tick: Tick) -> Self {
        assert!(
            input_bytes <= INPUT_BYTES_MAX,
            "an input has at most {INPUT_BYTES_MAX} bytes"
        );
        let mut model = Self {
            bits: vec![Bit::one_in(2); flips_of(input_bytes, input_bytes)],
            input_bytes,
            tick,
            is_new: true,
            cursor: Cursor::START,
        };
        model.start(tick);
        model
    }

    /// Forgets everything; the slot starts after `tick`.
    pub fn start(&mut self, tick: Tick) {
        self.tick = tick;
        self.is_new = true;
        self.cursor = Cursor::START;
        self.bits[CHANGED..][..AGES].fill(Bit::one_in(8));
        self.bits[CHANGED_ABSENT..][..AGES].fill(Bit::one_in(16));
        self.bits[VANISHED] = Bit::one_in(16);
        self.bits[MOVED] = Bit::one_in(2);
        self.bits[SETS..].fill(Bit::one_in(6));
    }

    /// The tick up to which the model has learned.
    #[must_use]
    pub const fn tick(&self) -> Tick {
        self.tick
    }

    /// Where the slot stands at [`SlotModel::tick`].
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether the model is still at its start. Later its cursor follows history, so what has
    /// changed there from one tick to the next has changed for the cursor as well.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Learns the input of the next tick; `None` if the slot is absent.
    pub fn advance(&mut self, input: Option<&[u8]>) {
        let changed = self.cursor.differs(input);
        self.learn(changed, input);
    }

    /// Learns that the next tick has the same input as this one. Not for a new model.
    pub fn advance_unchanged(&mut self) {
        self.learn(false, None);
    }

    #[inline]
    fn learn(&mut self, changed: bool, input: Option<&[u8]>) {
        self.tick = self.tick.next();
        self.is_new = false;
        self.bits[self.cursor.changed_context()].update(changed);
        if changed {
            let bits = &mut self.bits;
            walk_change(&self.cursor, input, self.input_bytes, |context, bit| {
                bits[context].update(bit);
            });
            self.cursor.take(input);
        }
        self.cursor.grow_older(changed);
    }

    /// Codes `input` as the tick after `cursor`, and moves the cursor there.
    #[inline]
    pub fn encode(&self, cursor: &mut Cursor, input: Option<&[u8]>, coder: &mut Encoder<'_>) {
        let changed = cursor.differs(input);
        coder.bit(changed, self.bits[cursor.changed_context()]);
        if changed {
            self.encode_change(cursor, input, coder);
            cursor.take(input);
        }
        cursor.grow_older(changed);
    }

    /// Codes that the tick after `cursor` has the same input, and moves the cursor there.
    #[inline]
    pub fn encode_unchanged(&self, cursor: &mut Cursor, coder: &mut Encoder<'_>) {
        coder.bit(false, self.bits[cursor.changed_context()]);
        cursor.grow_older(false);
    }

    fn encode_change(&self, cursor: &Cursor, input: Option<&[u8]>, coder: &mut Encoder<'_>) {
        let mark = coder.mark();
        let bits_before = coder.bits();
        coder.bit(false, PLAIN);
        walk_change(cursor, input, self.input_bytes, |context, bit| {
            coder.bit(bit, self.bits[context]);
        });
        let Some(bytes) = input else { return };
        // 8 bits for the flag, and two of rounding.
        if coder.bits() - bits_before > bytes.len() * 8 + 10 {
            coder.restore(&mark);
            coder.bit(true, PLAIN);
            for &byte in bytes {
                coder.uniform(u32::from(byte), 8);
            }
        }
    }

    /// Moves `cursor` to the tick that [`SlotModel::encode`] coded; true if it changed.
    #[inline]
    pub fn decode(&self, cursor: &mut Cursor, coder: &mut Decoder<'_>) -> bool {
        let changed = coder.bit(self.bits[cursor.changed_context()]);
        if changed {
            self.decode_change(cursor, coder);
        }
        cursor.grow_older(changed);
        changed
    }

    fn decode_change(&self, cursor: &mut Cursor, coder: &mut Decoder<'_>) {
        let value = &mut cursor.value[..self.input_bytes];
        if coder.bit(PLAIN) {
            cursor.present = true;
            for byte in value {
                *byte = coder.uniform(8).to_le_bytes()[0];
            }
            return;
        }
        if cursor.present {
            if self.input_bytes == 0 || coder.bit(self.bits[VANISHED]) {
                cursor.present = false;
                return;
            }
        } else {
            cursor.present = true;
            if self.input_bytes == 0 || !coder.bit(self.bits[MOVED]) {
                return;
            }
        }
        let last = value.len() - 1;
        let changed = decode_set(&self.bits[SETS..], last, coder);
        for (index, byte) in value.iter_mut().enumerate() {
            if changed >> index & 1 == 1 {
                let flips = &self.bits[flips_of(index, self.input_bytes)..];
                *byte ^= decode_set(flips, 7, coder).to_le_bytes()[0];
            }
        }
    }
}

/// First context of the flipped bits of the byte `index`.
const fn flips_of(index: usize, input_bytes: usize) -> usize {
    SETS + PER_PLACE * (input_bytes + 8 * index)
}

/// The set that [`walk_set`] visited.
#[inline]
fn decode_set(contexts: &[Bit], last: usize, coder: &mut Decoder<'_>) -> u64 {
    let mut first = 0;
    while first < last && !coder.bit(contexts[first * PER_PLACE + FIRST]) {
        first += 1;
    }
    let mut set = 1 << first;
    if first < last && coder.bit(contexts[first * PER_PLACE + MORE]) {
        let mut some = false;
        for place in first + 1..=last {
            let is_member =
                (place == last && !some) || coder.bit(contexts[place * PER_PLACE + REST]);
            some |= is_member;
            set |= u64::from(is_member) << place;
        }
    }
    set
}

/// Visits the decisions of a set of the places 0 to `last` that has a member, as bits of `set`.
/// What must be a member, because no other is, is not visited.
#[inline]
fn walk_set(set: u64, last: usize, mut decide: impl FnMut(usize, bool)) {
    let first = set.trailing_zeros() as usize;
    for place in 0..first {
        decide(place * PER_PLACE + FIRST, false);
    }
    if first == last {
        return;
    }
    decide(first * PER_PLACE + FIRST, true);
    let more = set >> first != 1;
    decide(first * PER_PLACE + MORE, more);
    if more {
        let mut some = false;
        for place in first + 1..=last {
            let is_member = set >> place & 1 == 1;
            if place < last || some {
                decide(place * PER_PLACE + REST, is_member);
            }
            some |= is_member;
        }
    }
}

/// Visits the decisions of a change from `cursor` to `input`, in order, but for whether it is one.
#[inline]
fn walk_change(
    cursor: &Cursor,
    input: Option<&[u8]>,
    input_bytes: usize,
    mut decide: impl FnMut(usize, bool),
) {
    if input_bytes == 0 {
        // Present or absent is all there is.
        return;
    }
    let Some(input) = input else {
        decide(VANISHED, true);
        return;
    };
    let before = &cursor.value[..input_bytes];
    if cursor.present {
        decide(VANISHED, false);
    } else {
        let moved = before != input;
        decide(MOVED, moved);
        if !moved {
            return;
        }
    }
    let mut changed = 0;
    for (index, (from, to)) in before.iter().zip(input).enumerate() {
        changed |= u64::from(from != to) << index;
    }
    walk_set(changed, input_bytes - 1, |context, bit| {
        decide(SETS + context, bit);
    });
    let mut rest = changed;
    while rest != 0 {
        let index = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let flips = before[index] ^ input[index];
        let contexts = flips_of(index, input_bytes);
        walk_set(u64::from(flips), 7, |context, bit| {
            decide(contexts + context, bit);
        });
    }
}

const _: () = assert!(UNIFORM_BITS_MAX >= 8 && INPUT_BYTES_MAX <= 64);
