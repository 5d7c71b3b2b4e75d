//! Messages of the game: reliable and ordered, or unreliable, over `renet` inside our datagrams.
//!
//! Each peer link has a `RenetClient` at both ends. renet is built to send at every tick, also when
//! nothing happens, and packs by a budget that we cannot change later. So it is kept on short
//! reins:
//!
//! - **One packet per feeding.** Messages wait in our queues and enter renet in batches that make
//!   one packet each, fitted to the room of the datagram.
//! - **renet's clock is ours.** It resends what is older than a fixed time. Each batch enters at its
//!   own moment of a private clock that never runs past the end of the oldest batch's time, except
//!   to resend exactly that batch. So a resent packet is never larger than it was, however long the
//!   pump paused, and the resend time may follow the round trip.
//! - **Silence.** renet answers acks with acks, for ever. It is asked for packets only when
//!   something is new or due, or when a reliable packet arrived since the last ack.
//! - **A filter** parses every packet before renet sees it, and refuses what would overrun the
//!   receive memory; a refused packet is like a lost one, so the peer sends it again.

mod api;
mod filter;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use renet::{Bytes, ChannelConfig, ConnectionConfig, RenetClient, SendType};

pub use api::{Channel, MessageFault, MessageStats, MessagesConfig, SendError};

use self::filter::Packet;
use crate::limits::{MESSAGE_BYTES_MAX, MESSAGE_PACKET_BYTES_MAX};
use crate::time::Time;

/// Resend time on renet's private clock.
const PRIVATE_RESEND_US: u64 = 100_000;

/// Packets of one batch whose late ack still counts. renet forgets a packet after 3 s of its clock;
/// this many resends span 1.6 s.
const BATCH_SEQS_MAX: usize = 16;

/// Bytes that renet may hold unacked. More wait in our queue.
const WINDOW_BYTES_MAX: usize = 32 << 10;

/// Batches in flight.
const BATCHES_MAX: usize = 64;

/// Kind, sequence number, channel and count in front of a packet's messages.
const PACKET_HEAD_BYTES: usize = 12;

/// Largest number and length in front of a message.
const MESSAGE_HEAD_BYTES: usize = 10;

/// A packet so much older than the newest is dropped: renet's list of ranges to ack stays short.
const STALE_PACKETS: u64 = 1024;

/// A reliable message so far ahead of the next one cannot come from an honest sender.
const AHEAD_MESSAGES_MAX: u64 = 1 << 17;

/// What a waiting message costs beside its bytes.
const MESSAGE_COST_BYTES: usize = 32;

/// Reliable messages that always travel together, as one packet.
#[derive(Debug)]
struct Batch {
    /// Numbers of the packets that carried it; the ack of any is the ack of all its messages.
    seqs: VecDeque<u64>,
    /// Size of its packet when it was first made; it only shrinks.
    bytes: usize,
    /// When it was last sent.
    sent_at: Time,
    /// The same on renet's clock, in microseconds. Grows from batch to batch.
    entered_us: u64,
}

/// One end of a link's message channels.
#[derive(Debug)]
pub struct Messages {
    config: MessagesConfig,
    client: RenetClient,
    fault: Option<MessageFault>,
    stats: MessageStats,

    queues: [Queue; 2],
    /// Reliable messages in flight, in the order in which they fall due.
    batches: VecDeque<Batch>,
    /// Packets that renet made and that have not gone out.
    outgoing: VecDeque<Vec<u8>>,
    /// Number of the next reliable message that enters renet.
    next_sent: u64,
    /// A reliable packet has arrived since the last ack.
    ack_owed: bool,
    /// renet's clock, in microseconds, and the moment to which it was advanced.
    private_us: u64,
    advanced_at: Option<Time>,

    /// Number of the next reliable message that the game will get.
    next_received: u64,
    /// Reliable messages in renet that wait for one before them: their sizes.
    held: BTreeMap<u64, usize>,
    held_bytes: usize,
    /// What the game can take.
    ready: VecDeque<(Channel, Bytes)>,
    ready_bytes: usize,
    newest_seq: u64,
}

/// Messages that have not entered renet.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, message: Vec<u8>) {
        self.bytes += message.len() + MESSAGE_COST_BYTES;
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len() + MESSAGE_COST_BYTES;
        Some(message)
    }
}

impl Messages {
    /// An end that has sent and received nothing.
    #[must_use]
    pub fn new(config: MessagesConfig) -> Self {
        Self {
            config,
            client: renet_client(&config),
            fault: None,
            stats: MessageStats::default(),
            queues: [Queue::default(), Queue::default()],
            batches: VecDeque::new(),
            outgoing: VecDeque::new(),
            next_sent: 0,
            ack_owed: false,
            private_us: 0,
            advanced_at: None,
            next_received: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            newest_seq: 0,
        }
    }

    /// Takes a message for the peer. It goes out with one of the next calls of [`Messages::pump`].
    ///
    /// # Errors
    /// If it is empty or longer than [`MESSAGE_BYTES_MAX`], if too much waits, or if the channels
    /// have ended; nothing is taken then, and the link goes on.
    pub fn send(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), SendError> {
        if self.fault.is_some() {
            return Err(SendError::Ended);
        }
        if bytes.is_empty() {
            return Err(SendError::Empty);
        }
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: bytes.len() });
        }
        let queue = &mut self.queues[usize::from(channel.number())];
        if queue.bytes + bytes.len() + MESSAGE_COST_BYTES > self.config.send_bytes_max {
            return Err(SendError::Full {
                waiting: queue.bytes,
                max: self.config.send_bytes_max,
            });
        }
        queue.push(bytes.to_vec());
        Ok(())
    }

    /// The next packet of at most `room` bytes for the datagram that goes out now, if there is
    /// anything to say. A further call may give a further packet.
    ///
    /// Packets are fitted to `room` when they are made, but a long message or a resent packet needs
    /// [`Messages::room_wanted`]: such room must come now and then.
    pub fn pump(&mut self, now: Time, room: usize) -> Option<Vec<u8>> {
        if self.fault.is_some() {
            return None;
        }
        if self.outgoing.is_empty() {
            self.make_packets(now, room);
        }
        let index = self
            .outgoing
            .iter()
            .position(|packet| packet.len() <= room)?;
        self.stats.packets_sent += 1;
        self.outgoing.remove(index)
    }

    /// Room that lets everything go on which waits now; 0 if nothing waits. At most
    /// [`MESSAGE_PACKET_BYTES_MAX`].
    #[must_use]
    pub fn room_wanted(&self) -> usize {
        let packets = self.outgoing.iter().map(Vec::len);
        let batches = self.batches.front().map(|batch| batch.bytes);
        let messages = self
            .queues
            .iter()
            .filter_map(|queue| queue.messages.front())
            .map(|message| PACKET_HEAD_BYTES + MESSAGE_HEAD_BYTES + message.len());
        packets
            .chain(batches)
            .chain(messages)
            .max()
            .unwrap_or(0)
            .min(MESSAGE_PACKET_BYTES_MAX)
    }

    /// Takes a packet of the peer.
    ///
    /// # Errors
    /// If the peer broke the rules. The channels have ended then; what arrived before may still be
    /// received.
    pub fn handle(&mut self, packet: &[u8]) -> Result<(), MessageFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.handle_sound(packet)
            .inspect_err(|&fault| self.fault = Some(fault))
    }

    /// The next message of the peer.
    pub fn receive(&mut self) -> Option<(Channel, Vec<u8>)> {
        let (channel, bytes) = self.ready.pop_front()?;
        self.ready_bytes -= bytes.len() + MESSAGE_COST_BYTES;
        Some((channel, bytes.into()))
    }

    /// Sets the time after which an unacked packet is sent again; somewhat more than the round
    /// trip is best. At most 5 s.
    pub fn set_resend_us(&mut self, resend_us: u64) {
        self.config.resend_us = resend_us.min(5_000_000);
    }

    /// Whether nothing waits for sending or for an ack.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queues.iter().all(|queue| queue.messages.is_empty())
            && self.outgoing.is_empty()
            && self.batches.is_empty()
            && !self.ack_owed
    }

    /// The breach that ended the channels.
    #[must_use]
    pub const fn fault(&self) -> Option<MessageFault> {
        self.fault
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> MessageStats {
        self.stats
    }

    /// Asks renet for packets, if there is a reason to.
    fn make_packets(&mut self, now: Time, room: usize) {
        let room = room.min(MESSAGE_PACKET_BYTES_MAX);
        let due = self.batches.front().is_some_and(|batch| {
            batch.bytes.min(MESSAGE_PACKET_BYTES_MAX) <= room
                && now.micros_since(batch.sent_at) >= self.config.resend_us
        });
        let feeds = !due && self.may_feed() && self.fits(Channel::Reliable, room);
        let tells = self.fits(Channel::Unreliable, room);
        if !due && !feeds && !tells && !self.ack_owed {
            return;
        }
        self.advance(now, due);
        let room = room.saturating_sub(PACKET_HEAD_BYTES);
        if tells {
            self.feed(Channel::Unreliable, room);
        }
        if feeds {
            self.feed(Channel::Reliable, room);
        }
        let packets = self.client.get_packets_to_send();
        if self.client.is_disconnected() {
            self.fault = Some(MessageFault::Closed);
            return;
        }
        let resent = if due { self.batches.pop_front() } else { None };
        self.enlist(now, resent, packets);
        self.invariants();
    }

    /// Whether a message waits whose packet fits `room`.
    fn fits(&self, channel: Channel, room: usize) -> bool {
        self.queues[usize::from(channel.number())]
            .messages
            .front()
            .is_some_and(|message| PACKET_HEAD_BYTES + MESSAGE_HEAD_BYTES + message.len() <= room)
    }

    /// Whether another batch of reliable messages may enter renet.
    fn may_feed(&self) -> bool {
        let channel = Channel::Reliable.number();
        self.client.channel_available_memory(channel) > WINDOW_BYTES_MAX
            && self.batches.len() < BATCHES_MAX
            // The batch needs a moment of its own before the oldest falls due.
            && self
                .batches
                .front()
                .is_none_or(|batch| self.private_us + 1 < batch.entered_us + PRIVATE_RESEND_US)
    }

    /// Advances renet's clock: to the end of the oldest batch's time if that is to be sent again,
    /// else by the time that passed, but by one microsecond at least and never to that end.
    fn advance(&mut self, now: Time, due: bool) {
        let elapsed = now.micros_since(self.advanced_at.unwrap_or(now)).max(1);
        self.advanced_at = Some(now);
        let before = self.private_us;
        self.private_us = match self.batches.front() {
            Some(batch) if due => batch.entered_us + PRIVATE_RESEND_US,
            // Half of the time is left for batches that need their own moment.
            Some(batch) => (before + elapsed)
                .min(batch.entered_us + PRIVATE_RESEND_US / 2)
                .max(before + 1)
                .min(batch.entered_us + PRIVATE_RESEND_US - 1),
            None => before + elapsed,
        };
        self.client
            .update(Duration::from_micros(self.private_us - before));
    }

    /// Moves as many messages into renet as fit one packet; at least one.
    fn feed(&mut self, channel: Channel, room: usize) {
        let mut used = 0;
        let queue = &mut self.queues[usize::from(channel.number())];
        while let Some(message) = queue.messages.front() {
            let id_bytes = match channel {
                Channel::Reliable => filter::varint_bytes(self.next_sent),
                Channel::Unreliable => 0,
            };
            let bytes = id_bytes + filter::varint_bytes(message.len() as u64) + message.len();
            if used > 0 && used + bytes > room {
                break;
            }
            used += bytes;
            if let Some(message) = queue.pop() {
                self.client.send_message(channel.number(), message);
            }
            if channel == Channel::Reliable {
                self.next_sent += 1;
            }
        }
    }

    /// Queues what renet made, and notes which packet carries which batch.
    fn enlist(&mut self, now: Time, resent: Option<Batch>, packets: Vec<Vec<u8>>) {
        let mut resent = resent;
        for packet in packets {
            let head = filter::head(&packet);
            if packet.len() > MESSAGE_PACKET_BYTES_MAX {
                // Our batches are smaller: this is an ack of numbers that the peer chose badly.
                self.fault = Some(MessageFault::AckTooLarge(packet.len()));
                return;
            }
            if let Some((filter::KIND_RELIABLE, seq)) = head {
                let mut batch = resent.take().map_or_else(
                    || Batch {
                        seqs: VecDeque::new(),
                        // A later packet may have a longer sequence number.
                        bytes: packet.len() + 7,
                        sent_at: now,
                        entered_us: 0,
                    },
                    |batch| {
                        self.stats.packets_resent += 1;
                        batch
                    },
                );
                if batch.seqs.len() == BATCH_SEQS_MAX {
                    batch.seqs.pop_front();
                }
                batch.seqs.push_back(seq);
                batch.sent_at = now;
                batch.entered_us = self.private_us;
                self.batches.push_back(batch);
            } else if let Some((filter::KIND_ACK, _)) = head {
                self.ack_owed = false;
            }
            self.outgoing.push_back(packet);
        }
    }

    fn handle_sound(&mut self, packet: &[u8]) -> Result<(), MessageFault> {
        let parsed = filter::parse(packet)?;
        if self.newest_seq.saturating_sub(parsed.seq()) > STALE_PACKETS || !self.accepts(&parsed)? {
            self.stats.packets_refused += 1;
            return Ok(());
        }
        self.newest_seq = self.newest_seq.max(parsed.seq());
        self.client.process_packet(packet);
        if self.client.is_disconnected() {
            return Err(MessageFault::Closed);
        }
        match parsed {
            Packet::Reliable { messages, .. } => {
                self.ack_owed = true;
                for (id, bytes) in messages {
                    if id >= self.next_received && self.held.insert(id, bytes).is_none() {
                        self.held_bytes += bytes + MESSAGE_COST_BYTES;
                    }
                }
            }
            Packet::Unreliable { .. } => {}
            Packet::Ack { ranges, .. } => self.batches.retain(|batch| {
                !batch
                    .seqs
                    .iter()
                    .any(|seq| ranges.iter().any(|range| range.contains(seq)))
            }),
        }
        self.drain();
        self.invariants();
        Ok(())
    }

    /// Whether there is memory for what a packet brings.
    fn accepts(&self, packet: &Packet) -> Result<bool, MessageFault> {
        let max = self.config.receive_bytes_max;
        match packet {
            Packet::Ack { .. } => Ok(true),
            Packet::Unreliable { .. } => Ok(self.ready_bytes < max),
            Packet::Reliable { messages, .. } => {
                let mut fresh_bytes = 0;
                let mut has_next = false;
                for &(id, bytes) in messages {
                    if id > self.next_received + AHEAD_MESSAGES_MAX {
                        return Err(MessageFault::Ahead(id));
                    }
                    if id >= self.next_received && !self.held.contains_key(&id) {
                        fresh_bytes += bytes + MESSAGE_COST_BYTES;
                        has_next |= id == self.next_received;
                    }
                }
                // Known messages are taken for the sake of their ack. The next one is taken even
                // when too many wait for it, else they would wait for ever.
                Ok(fresh_bytes == 0
                    || self.ready_bytes < max && (has_next || self.held_bytes + fresh_bytes <= max))
            }
        }
    }

    /// Moves from renet what the game may take.
    fn drain(&mut self) {
        for channel in [Channel::Reliable, Channel::Unreliable] {
            while let Some(bytes) = self.client.receive_message(channel.number()) {
                if channel == Channel::Reliable {
                    if let Some(bytes) = self.held.remove(&self.next_received) {
                        self.held_bytes -= bytes + MESSAGE_COST_BYTES;
                    }
                    self.next_received += 1;
                }
                self.ready_bytes += bytes.len() + MESSAGE_COST_BYTES;
                self.ready.push_back((channel, bytes));
            }
        }
    }

    fn invariants(&self) {
        debug_assert!(self.batches.len() <= BATCHES_MAX);
        debug_assert!(
            self.batches
                .iter()
                .zip(self.batches.iter().skip(1))
                .all(|(a, b)| a.entered_us < b.entered_us && a.sent_at <= b.sent_at)
        );
        debug_assert!(
            self.batches
                .front()
                .is_none_or(|batch| self.private_us < batch.entered_us + PRIVATE_RESEND_US)
        );
        debug_assert!(
            self.fault.is_some()
                || !self.batches.is_empty()
                || self
                    .client
                    .channel_available_memory(Channel::Reliable.number())
                    == 2 * WINDOW_BYTES_MAX,
            "unacked messages without a batch would never be sent again"
        );
        debug_assert!(!self.held.contains_key(&self.next_received));
    }
}

fn renet_client(config: &MessagesConfig) -> RenetClient {
    let channels = |memory: usize| {
        // The unreliable channel first: renet drops its messages when earlier channels have used
        // the budget. The budget itself is never reached.
        vec![
            ChannelConfig {
                channel_id: Channel::Unreliable.number(),
                max_memory_usage_bytes: memory,
                send_type: SendType::Unreliable,
            },
            ChannelConfig {
                channel_id: Channel::Reliable.number(),
                max_memory_usage_bytes: memory,
                send_type: SendType::ReliableOrdered {
                    resend_time: Duration::from_micros(PRIVATE_RESEND_US),
                },
            },
        ]
    };
    let mut client = RenetClient::new(ConnectionConfig {
        available_bytes_per_tick: 1 << 20,
        client_channels_config: channels(2 * WINDOW_BYTES_MAX),
        // The filter refuses long before this is full.
        server_channels_config: channels(
            config
                .receive_bytes_max
                .saturating_mul(2)
                .saturating_add(1 << 20),
        ),
    });
    client.set_connected();
    client
}

#[cfg(test)]
mod tests;
