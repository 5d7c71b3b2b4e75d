//! A reader of all datagrams between a host and one client.

use std::collections::BTreeMap;

use super::coder::{Bytes, Wrong};
use super::datagrams::{Clock, Control, Datagram, Ticked, Welcome, read};
use super::inputs::{self, History, Model, Plan};

/// What one end has sent, and has accepted of the other.
#[derive(Default)]
pub(super) struct End {
    /// Tick datagrams sent.
    sent: u32,
    /// Per own datagram: newest inputs of the other end that were held when it left.
    held: BTreeMap<u32, Vec<u32>>,
    newest: Option<u32>,
    /// The offset between tick and sequence, and the datagram that spelled it out.
    offset: Option<(i64, u32)>,
    next_control: u32,
    /// Slots whose inputs come in, and the tick after which each begins.
    slots: Vec<usize>,
    begins: Vec<u32>,
    models: Vec<Model>,
    /// Inputs of the other end, by slot.
    pub(super) histories: Vec<History>,
    pub(super) hashes: Vec<(u32, u32)>,
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) clocks: u32,
    pub(super) batches: u32,
    pub(super) plain: u32,
}

/// The link between a host and a client, as told by its datagrams.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) host: End,
    pub(super) client: End,
    pub(super) client_name: String,
    pub(super) members: Vec<String>,
    pub(super) last_tick: Option<u32>,
    pub(super) bye: Option<u32>,
    welcome: Option<Welcome>,
    nonce: u64,
    input_bytes: usize,
    transfer: Option<(u16, u32, Vec<u8>, usize)>,
    pub(super) state: Option<(u32, Vec<u8>)>,
}

fn mix(a: u64, b: u64) -> u64 {
    let a = u128::from(a ^ 0x9e37_79b9_7f4a_7c15);
    let b = u128::from(b ^ 0x243f_6a88_85a3_08d3);
    let [low, high] = [a * b, (a * b) >> 64].map(|part| part & u128::from(u64::MAX));
    u64::try_from(low ^ high).unwrap()
}

impl Welcome {
    fn tag(&self, sequence: u32) -> u8 {
        let [low, high] = [self.session, self.session >> 64]
            .map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap());
        let key = mix(mix(low, high), self.nonce) % 64;
        let tag = key + 5 * u64::from(self.term) + 11 * u64::from(sequence >> 8);
        u8::try_from(tag % 64).unwrap()
    }
}

impl Reader {
    /// A datagram leaves, at its sender's time.
    pub(super) fn sent(
        &mut self,
        by_host: bool,
        datagram: &[u8],
        now_us: u64,
    ) -> Result<(), Wrong> {
        let end = if by_host {
            &mut self.host
        } else {
            &mut self.client
        };
        match read(datagram)? {
            Datagram::Ticked(ticked) => {
                let held = end.histories.iter().map(|history| history.newest);
                let held = held.collect();
                end.held.insert(end.sent, held);
                end.sent += 1;
                if let Some(Clock { sent_us }) = ticked.clock
                    && sent_us != now_us
                {
                    return Err("a clock section with another time");
                }
                // The host expects inputs from here on.
                for (_, control) in ticked.control {
                    if let (true, Control::Activate(tick)) = (by_host, control) {
                        self.activate(tick);
                    }
                }
            }
            Datagram::Welcome(welcome) if welcome.nonce != self.nonce => {
                return Err("a welcome to another hello");
            }
            Datagram::Welcome(welcome) if self.welcome.is_none() => {
                self.client.begin(
                    (0..welcome.slots).collect(),
                    welcome.slots,
                    self.input_bytes,
                    welcome.from,
                );
                self.host
                    .begin(Vec::new(), welcome.slots, self.input_bytes, welcome.from);
                self.welcome = Some(welcome);
            }
            Datagram::Hello(hello) => {
                self.input_bytes = usize::from(hello.input_bytes);
                self.nonce = hello.nonce;
                self.client_name = hello.name;
            }
            Datagram::Welcome(_)
            | Datagram::Bye { .. }
            | Datagram::Chunk(_)
            | Datagram::ChunkAck { .. } => {}
        }
        Ok(())
    }

    fn activate(&mut self, tick: u32) {
        let slot = self.welcome.as_ref().and_then(|welcome| welcome.slot);
        let Some(slot) = slot.filter(|_| self.host.slots.is_empty()) else {
            return;
        };
        self.host.slots.push(slot);
        self.host.begins[slot] = tick - 1;
        self.host.histories[slot].newest = tick - 1;
        self.host.models[slot] = Model::new(self.input_bytes, tick - 1);
    }

    /// A datagram arrives.
    pub(super) fn arrived(&mut self, at_host: bool, datagram: &[u8]) -> Result<(), Wrong> {
        let welcome = self.welcome.as_ref();
        match read(datagram)? {
            Datagram::Hello(_) | Datagram::Welcome(_) => Ok(()),
            Datagram::Ticked(ticked) => {
                let welcome = welcome.ok_or("a tick datagram before the welcome")?;
                let (receiver, sender) = if at_host {
                    (&mut self.host, &self.client)
                } else {
                    (&mut self.client, &self.host)
                };
                let news =
                    receiver.accept(sender.sent, &sender.histories, welcome, at_host, ticked)?;
                for control in news {
                    match control {
                        Control::Member { name } => self.members.push(name),
                        Control::LastTick(tick) => self.last_tick = Some(tick),
                        Control::Transfer { id, tick, bytes } => {
                            let bytes = vec![0; usize::try_from(bytes).unwrap()];
                            self.transfer = Some((id, tick, bytes, 0));
                        }
                        Control::Activate(_) | Control::Other => {}
                    }
                }
                Ok(())
            }
            Datagram::Bye {
                session_low,
                reason,
            } => {
                let session = welcome.ok_or("a goodbye before the welcome")?.session;
                self.bye = Some(reason);
                if session & u128::from(u64::MAX) == u128::from(session_low) {
                    Ok(())
                } else {
                    Err("a goodbye of another session")
                }
            }
            Datagram::Chunk(chunk) => {
                let (id, tick, bytes, arrived) =
                    self.transfer.as_mut().ok_or("a chunk without a transfer")?;
                let place = bytes.get_mut(1160 * chunk.index..).ok_or("a late chunk")?;
                let count = place.len().min(1160);
                if chunk.id != *id || chunk.payload.len() != count {
                    return Err("a chunk of a wrong size or transfer");
                }
                place[..count].copy_from_slice(chunk.payload);
                *arrived += count;
                if *arrived >= bytes.len() {
                    self.state = Some((*tick, bytes.clone()));
                }
                Ok(())
            }
            Datagram::ChunkAck { id } => match &self.transfer {
                Some((known, ..)) if *known == id => Ok(()),
                _ => Err("an ack of an unknown transfer"),
            },
        }
    }
}

impl End {
    fn begin(&mut self, incoming: Vec<usize>, slots: usize, input_bytes: usize, from: u32) {
        self.slots = incoming;
        self.begins = vec![from; slots];
        self.models = (0..slots).map(|_| Model::new(input_bytes, from)).collect();
        self.histories = vec![History::default(); slots];
        self.histories
            .iter_mut()
            .for_each(|history| history.newest = from);
    }

    /// Reads a tick datagram; gives the control messages that are new.
    fn accept(
        &mut self,
        sent_by_other: u32,
        others: &[History],
        welcome: &Welcome,
        is_host: bool,
        ticked: Ticked<'_>,
    ) -> Result<Vec<Control>, Wrong> {
        // The number nearest to the newest one that ends in the low byte.
        let near = i64::from(self.newest.unwrap_or(0));
        let sequence = (near - 127..=near + 128)
            .find(|number| number & 0xff == i64::from(ticked.sequence_low))
            .map(|number| if number < 0 { number + 256 } else { number })
            .and_then(|number| u32::try_from(number).ok())
            .ok_or("no sequence number")?;
        if sequence >= sent_by_other || ticked.tag != welcome.tag(sequence) {
            return Err("a wrong tag or sequence number");
        }
        let newest_sent = self.sent.checked_sub(1);
        let ack = match (ticked.ack_low, newest_sent) {
            (None, _) => None,
            (Some(_), None) => return Err("an ack of nothing"),
            (Some(low), Some(newest)) => {
                let behind = newest.wrapping_sub(u32::from(low)) & 0xff;
                Some(
                    newest
                        .checked_sub(behind)
                        .ok_or("an ack of what was never sent")?,
                )
            }
        };
        if let Some(tick) = ticked.tick
            && self.offset.is_none_or(|(_, since)| sequence > since)
        {
            self.offset = Some((i64::from(tick) - i64::from(sequence), sequence));
        }
        let implied = || {
            let (offset, since) = self.offset?;
            let tick = i64::from(sequence) + offset;
            u32::try_from(tick).ok().filter(|_| sequence > since)
        };
        let tick = ticked.tick.or_else(implied);
        match tick {
            Some(reference) if !self.slots.is_empty() => {
                let expected = ack.and_then(|ack| self.held.get(&ack));
                let expected = expected.unwrap_or(&self.begins);
                // What was held before a slot began does not count.
                let expected = expected
                    .iter()
                    .zip(&self.begins)
                    .map(|(&held, &begin)| held.max(begin));
                let own = welcome.slot.filter(|_| !is_host);
                let plan = Plan {
                    slots: self.slots.clone(),
                    reference,
                    uneven: welcome.waits && !is_host,
                    expected: expected.collect(),
                    own: own.map(|slot| (slot, &others[slot])),
                };
                // What the client sent, the other way round: what the host has of it.
                inputs::read(&plan, ticked.batch, &mut self.models, &mut self.histories)?;
                self.batches += 1;
            }
            _ if ticked.batch.is_empty() => {}
            _ => return Err("a batch without a tick"),
        }
        self.newest = self.newest.max(Some(sequence));
        self.hashes.extend(ticked.hash);
        self.messages.extend(ticked.messages);
        self.clocks += u32::from(ticked.clock.is_some());
        let is_plain = ticked.ack_low.is_some() && ticked.tick.is_none() && ticked.clock.is_none();
        self.plain += u32::from(is_plain && ticked.hash.is_none() && ticked.control.is_empty());
        let mut news = Vec::new();
        for (number, control) in ticked.control {
            if number > self.next_control {
                return Err("a gap in the control messages");
            }
            if number == self.next_control {
                self.next_control += 1;
                news.push(control);
            }
        }
        Ok(news)
    }
}

/// A snapshot of the toy: its tick, and the only column of its only kind.
pub(super) fn toy_snapshot(bytes: &[u8], schema_hash: u64) -> Result<(u32, u64), Wrong> {
    let mut bytes = Bytes(bytes);
    if bytes.byte()? != 1 || bytes.fixed(8)? != u128::from(schema_hash) {
        return Err("another form or schema");
    }
    let tick = u32::try_from(bytes.fixed(4)?).unwrap();
    if bytes.varint()? != 1 {
        return Err("a resource has one row");
    }
    // Of a single row the column is the value itself.
    let value = u64::try_from(bytes.fixed(8)?).unwrap();
    bytes.end()?;
    Ok((tick, value))
}
