//! What is likely of one slot's next input, learned from those before.
//!
//! A model is a pure function of the slot's history from its start up to [`SlotModel::tick`], so
//! two nodes that agree on a tick agree on the model without a word. Within a datagram it does not
//! learn; only its [`Cursor`] moves along.
//!
//! One tick is coded as: has it changed? If so, has the slot become absent (or, of an absent slot:
//! is its value another than the last one)? Which bytes changed, and which of their bits?

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
/// First context of bytes.
const BYTES: usize = 2 * AGES + 2;

/// Contexts of one byte: "changed" after none and after some of the earlier bytes did; then for
/// each bit "flipped" after none and after some of the byte's earlier bits did.
const PER_BYTE: usize = 2 + 2 * 8;

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
            Some(bytes) => !self.present || self.value[..bytes.len()] != *bytes,
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
            bits: vec![Bit::one_in(2); BYTES + PER_BYTE * input_bytes],
            input_bytes,
            tick,
            cursor: Cursor::START,
        };
        model.start(tick);
        model
    }

    /// Forgets everything; the slot starts after `tick`.
    pub fn start(&mut self, tick: Tick) {
        self.tick = tick;
        self.cursor = Cursor::START;
        self.bits[CHANGED..][..AGES].fill(Bit::one_in(8));
        self.bits[CHANGED_ABSENT..][..AGES].fill(Bit::one_in(16));
        self.bits[VANISHED] = Bit::one_in(16);
        self.bits[MOVED] = Bit::one_in(2);
        self.bits[BYTES..].fill(Bit::one_in(6));
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

    /// Learns the input of the next tick; `None` if the slot is absent.
    pub fn advance(&mut self, input: Option<&[u8]>) {
        self.tick = self.tick.next();
        let changed = self.cursor.differs(input);
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

    /// Moves `cursor` to the tick that [`SlotModel::encode`] coded.
    #[inline]
    pub fn decode(&self, cursor: &mut Cursor, coder: &mut Decoder<'_>) {
        let changed = coder.bit(self.bits[cursor.changed_context()]);
        if changed {
            self.decode_change(cursor, coder);
        }
        cursor.grow_older(changed);
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
        let mut some = false;
        let last = value.len() - 1;
        for (index, byte) in value.iter_mut().enumerate() {
            let context = BYTES + index * PER_BYTE;
            if (index == last && !some) || coder.bit(self.bits[context + usize::from(some)]) {
                some = true;
                let contexts = &self.bits[context + 2..][..16];
                *byte ^= decode_flips(contexts, coder);
            }
        }
    }
}

fn decode_flips(contexts: &[Bit], coder: &mut Decoder<'_>) -> u8 {
    let mut flips = 0_u8;
    for bit in 0..7 {
        let context = contexts[2 * bit + usize::from(flips != 0)];
        flips |= u8::from(coder.bit(context)) << bit;
    }
    if flips == 0 || coder.bit(contexts[15]) {
        flips |= 0x80;
    }
    flips
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
    let mut some = false;
    for (index, (&from, &to)) in before.iter().zip(input).enumerate() {
        let context = BYTES + index * PER_BYTE;
        let flips = from ^ to;
        if index + 1 < input_bytes || some {
            decide(context + usize::from(some), flips != 0);
        }
        if flips != 0 {
            some = true;
            walk_flips(flips, |flip_context, bit| {
                decide(context + 2 + flip_context, bit);
            });
        }
    }
}

/// The decisions of one changed byte, from its lowest bit to its highest.
#[inline]
fn walk_flips(flips: u8, mut decide: impl FnMut(usize, bool)) {
    let mut some = false;
    for bit in 0..7 {
        let flipped = flips >> bit & 1 == 1;
        decide(2 * bit + usize::from(some), flipped);
        some |= flipped;
    }
    // Something has flipped, so without another it is the last.
    if some {
        decide(15, flips & 0x80 != 0);
    }
}

const _: () = assert!(UNIFORM_BITS_MAX >= 8);
