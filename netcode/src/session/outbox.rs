//! Control messages: repeated until acked, delivered in order, exactly once.
//!
//! A section holds a run of messages that begins with the oldest unacked one, so a section that
//! arrives is useful whatever was lost before it, and the receiver never meets a gap. The ack is
//! that of the datagram which carried the section: there is no second numbering to ack.
//!
//! A peer acks only the newest datagram that it has. When it sends less often than we do, the
//! datagrams that it names may regularly miss the ones with a section. So every round without an
//! ack repeats the section in twice as many consecutive datagrams as the round before.

use std::collections::VecDeque;

use crate::limits::{CONTROL_BYTES_MAX, OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};
use crate::tick::Seq;
use crate::time::Time;
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};

/// Datagrams with a section that are remembered until their ack; older ones are forgotten.
const SECTIONS_MAX: usize = 256;

/// Consecutive datagrams that repeat a section in one round.
const REPEATS_MAX: u32 = 16;

/// Why a control message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// Too much waits for this peer's ack: [`OUTBOX_MESSAGES_MAX`] or [`OUTBOX_BYTES_MAX`].
    #[error("the peer has too many unacked control messages")]
    Full,
    /// The message is longer than [`CONTROL_BYTES_MAX`].
    #[error("a control message of {bytes} B exceeds {CONTROL_BYTES_MAX} B")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// The sending half.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    /// Unacked messages, oldest first.
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Number of the oldest unacked message.
    first: u32,
    /// Number after the newest message that was ever written.
    written: u32,
    /// Which datagram carried messages up to (not including) which number; oldest first.
    sections: VecDeque<(Seq, u32)>,
    /// When the running round began.
    round_at: Option<Time>,
    /// Rounds since the last ack that brought something.
    rounds: u32,
    /// Datagrams of this round that repeat the section.
    repeats: u32,
}

impl Outbox {
    /// An outbox without messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a message; it goes out with the next [`Outbox::write`].
    ///
    /// # Errors
    /// If it is too long, or if too much waits; nothing is taken then.
    pub fn push(&mut self, body: Vec<u8>) -> Result<(), OutboxError> {
        if body.len() > CONTROL_BYTES_MAX {
            return Err(OutboxError::TooLarge { bytes: body.len() });
        }
        if self.messages.len() == OUTBOX_MESSAGES_MAX || self.bytes + body.len() > OUTBOX_BYTES_MAX
        {
            return Err(OutboxError::Full);
        }
        self.bytes += body.len();
        self.messages.push_back(body);
        Ok(())
    }

    /// Appends a section of at most `room` bytes for the datagram `seq` to `out`, and says whether
    /// it did. It does when a message goes out for the first time, or when `resend_us` have passed
    /// without an ack.
    pub fn write(
        &mut self,
        now: Time,
        seq: Seq,
        room: usize,
        resend_us: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut used = varint_bytes(u64::from(self.first));
        let mut end = self.first;
        for message in &self.messages {
            used += varint_bytes(message.len() as u64) + message.len();
            if used > room {
                break;
            }
            end = end.saturating_add(1);
        }
        if end == self.first {
            return false;
        }
        let due = self
            .round_at
            .is_none_or(|at| now.micros_since(at) >= resend_us);
        let new = end > self.written;
        if !due && !new && self.repeats == 0 {
            return false;
        }
        if due {
            self.repeats = (1_u32 << self.rounds.min(8)).min(REPEATS_MAX);
            self.rounds = self.rounds.saturating_add(1);
            self.round_at = Some(now);
        } else if new {
            self.round_at = Some(now);
        }
        self.repeats = self.repeats.saturating_sub(1);
        put_varint(out, u64::from(self.first));
        for (_, message) in (self.first..end).zip(&self.messages) {
            put_counted(out, message);
        }
        self.written = self.written.max(end);
        if self.sections.len() == SECTIONS_MAX {
            self.sections.pop_front();
        }
        self.sections.push_back((seq, end));
        self.invariants();
        true
    }

    /// Takes note that the peer has accepted the datagram `seq`, with every message in it. A number
    /// that carried none, or that was acked before, changes nothing.
    pub fn on_ack(&mut self, seq: Seq) {
        let Some(index) = self.sections.iter().position(|&(sent, _)| sent == seq) else {
            return;
        };
        let end = self.sections[index].1;
        // What older datagrams carried is not worth remembering: a newer ack supersedes theirs.
        self.sections.drain(..=index);
        if end <= self.first {
            return;
        }
        while self.first < end {
            let message = self.messages.pop_front();
            self.bytes -= message.map_or(0, |message| message.len());
            self.first += 1;
        }
        self.rounds = 0;
        self.repeats = 0;
        if self.messages.is_empty() {
            self.round_at = None;
            self.sections.clear();
        }
        self.invariants();
    }

    /// Whether no message waits for an ack.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.messages.is_empty()
    }

    fn invariants(&self) {
        debug_assert_eq!(
            self.bytes,
            self.messages.iter().map(Vec::len).sum::<usize>()
        );
        debug_assert!(self.first <= self.written);
        debug_assert!(self.sections.len() <= SECTIONS_MAX);
        debug_assert!(!self.messages.is_empty() || self.sections.is_empty());
    }
}

/// The receiving half.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inbox {
    /// Number of the message that comes next.
    next: u32,
}

impl Inbox {
    /// An inbox that has received nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: 0 }
    }

    /// Reads a section, and only if all of it is sound, hands each message that is new to
    /// `deliver`, in order.
    ///
    /// # Errors
    /// If the section is malformed or leaves out messages; then nothing was delivered.
    pub fn read(
        &mut self,
        bytes: &[u8],
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        let first = reader.varint_u32()?;
        if first > self.next {
            return Err(DecodeError::Invalid("control messages are missing"));
        }
        let known = self.next - first;
        let bodies = reader.clone();
        let mut count = 0_u32;
        while !reader.is_empty() {
            reader.counted(CONTROL_BYTES_MAX)?;
            count += 1;
        }
        if count == 0 {
            return Err(DecodeError::Invalid("a control section is empty"));
        }
        let end = first
            .checked_add(count)
            .ok_or(DecodeError::Invalid("control messages ran out of numbers"))?;
        let mut reader = bodies;
        for index in 0..count {
            let body = reader.counted(CONTROL_BYTES_MAX)?;
            if index >= known {
                deliver(body);
            }
        }
        self.next = self.next.max(end);
        Ok(())
    }
}

/// Bytes that `value` takes as a varint.
const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    const RESEND_US: u64 = 100_000;

    fn body(number: u32) -> Vec<u8> {
        let mut body = number.to_le_bytes().to_vec();
        body.resize(4 + usize::try_from(number * 37 % 230).unwrap(), 7);
        body
    }

    /// Two ends, `every` of whose ticks the receiver answers, with `loss` per million both ways.
    fn exchange(seed: u64, loss: u32, every: u64, total: u32) -> u64 {
        let mut prng = Prng::new(seed);
        let (mut outbox, mut inbox) = (Outbox::new(), Inbox::new());
        let (mut pushed, mut delivered) = (0, Vec::new());
        let mut late: Vec<(u64, Vec<u8>, Seq)> = Vec::new();
        let mut newest = None;
        let mut sections = 0;
        for tick in 0..20_000_u64 {
            let now = Time::from_micros(tick * 16_666);
            while pushed < total && prng.below(3) == 0 && outbox.push(body(pushed)).is_ok() {
                pushed += 1;
            }
            let seq = Seq::new(u32::try_from(tick).unwrap());
            let mut bytes = Vec::new();
            let room = usize::try_from(prng.below(1100)).unwrap();
            if outbox.write(now, seq, room, RESEND_US, &mut bytes) {
                sections += 1;
                assert!(bytes.len() <= room);
            }
            if !prng.chance_per_million(loss) {
                late.push((tick + prng.below(4), bytes, seq));
            }
            let mut arriving: Vec<_> = late.extract_if(.., |(at, ..)| *at <= tick).collect();
            arriving.reverse();
            for (_, bytes, seq) in arriving {
                if !bytes.is_empty() {
                    inbox
                        .read(&bytes, |message| delivered.push(message.to_vec()))
                        .unwrap();
                }
                newest = newest.max(Some(seq));
            }
            if tick % every == 0 && !prng.chance_per_million(loss) {
                newest.inspect(|&seq| outbox.on_ack(seq));
            }
            if pushed == total && outbox.is_idle() {
                assert_eq!(
                    delivered.len(),
                    usize::try_from(total).unwrap(),
                    "seed {seed}"
                );
                for (number, message) in (0..).zip(&delivered) {
                    assert_eq!(*message, body(number), "seed {seed}");
                }
                let mut out = Vec::new();
                assert!(!outbox.write(Time::FAR, Seq::new(1 << 20), 1000, 0, &mut out));
                return sections;
            }
        }
        panic!(
            "seed {seed}: {} of {total} arrived, idle never",
            delivered.len()
        );
    }

    #[test]
    fn everything_arrives_once_and_in_order_at_any_loss() {
        for seed in 0..40 {
            for loss in [0, 50_000, 400_000] {
                exchange(seed, loss, 1, 200);
            }
        }
    }

    #[test]
    fn a_peer_that_answers_rarely_still_acks() {
        for every in [2, 3, 6, 12] {
            exchange(every, 0, every, 100);
            exchange(every, 200_000, every, 100);
        }
    }

    #[test]
    fn a_message_is_written_once_per_round() {
        let mut outbox = Outbox::new();
        outbox.push(vec![1]).unwrap();
        let mut out = Vec::new();
        let mut written = Vec::new();
        for ms in 0..100 {
            let now = Time::from_millis(ms);
            let seq = Seq::new(u32::try_from(ms).unwrap());
            if outbox.write(now, seq, 100, 60_000, &mut out) {
                written.push(ms);
            }
        }
        // The first round is one datagram, the second is two.
        assert_eq!(written, [0, 60, 61]);
        assert_eq!(out, [0, 1, 1].repeat(3));
        outbox.on_ack(Seq::new(5));
        assert!(!outbox.is_idle());
        outbox.on_ack(Seq::new(60));
        assert!(outbox.is_idle());
    }

    #[test]
    fn full_and_too_large_are_errors_that_change_nothing() {
        let mut outbox = Outbox::new();
        assert_eq!(
            outbox.push(vec![0; CONTROL_BYTES_MAX + 1]),
            Err(OutboxError::TooLarge {
                bytes: CONTROL_BYTES_MAX + 1
            })
        );
        for _ in 0..OUTBOX_MESSAGES_MAX {
            outbox.push(vec![]).unwrap();
        }
        assert_eq!(outbox.push(vec![]), Err(OutboxError::Full));
        let mut outbox = Outbox::new();
        while outbox.push(vec![0; CONTROL_BYTES_MAX]).is_ok() {}
        assert!(outbox.bytes <= OUTBOX_BYTES_MAX);
        assert!(outbox.bytes + CONTROL_BYTES_MAX > OUTBOX_BYTES_MAX);
    }

    #[test]
    fn a_bad_section_delivers_nothing() {
        let mut inbox = Inbox::new();
        let mut count = 0;
        let bad: [&[u8]; 5] = [&[], &[0], &[1, 1, 9], &[0, 1, 9, 2, 9], &[0, 0x85, 7]];
        for bytes in bad {
            assert!(inbox.read(bytes, |_| count += 1).is_err(), "{bytes:?}");
        }
        assert_eq!(count, 0);
        inbox.read(&[0, 1, 9], |_| count += 1).unwrap();
        inbox.read(&[0, 1, 9, 1, 8], |_| count += 1).unwrap();
        assert_eq!(count, 2);
    }

    #[test]
    fn golden_bytes_of_the_wire_document() {
        let (mut outbox, mut inbox) = (Outbox::new(), Inbox::new());
        let mut out = Vec::new();
        for _ in 0..5 {
            outbox.push(vec![1]).unwrap();
        }
        assert!(outbox.write(Time::ZERO, Seq::ZERO, 100, 1000, &mut out));
        inbox.read(&out, |_| {}).unwrap();
        outbox.on_ack(Seq::ZERO);
        outbox.push(b"ab".to_vec()).unwrap();
        outbox.push(vec![]).unwrap();
        out.clear();
        assert!(outbox.write(Time::ZERO, Seq::new(1), 100, 1000, &mut out));
        assert_eq!(out, [0x05, 0x02, 0x61, 0x62, 0x00]);
        let mut messages = Vec::new();
        inbox
            .read(&out, |body| messages.push(body.to_vec()))
            .unwrap();
        assert_eq!(messages, [b"ab".to_vec(), vec![]]);
    }

    #[test]
    fn random_sections_never_panic() {
        let mut prng = Prng::new(3);
        for _ in 0..50_000 {
            let mut inbox = Inbox {
                next: prng.next_u32() >> prng.below(32),
            };
            let bytes: Vec<u8> = (0..prng.below(30))
                .map(|_| prng.next_u64().to_le_bytes()[0] & 0x8f)
                .collect();
            let before = inbox.next;
            match inbox.read(&bytes, |_| {}) {
                Ok(()) => assert!(inbox.next >= before),
                Err(_) => assert_eq!(inbox.next, before),
            }
        }
    }

    #[test]
    fn varint_sizes_are_those_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX)] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_bytes(value));
        }
    }
}
