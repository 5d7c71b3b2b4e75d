//! Datagrams, as chapters 2 to 7 of the document have them.

use super::coder::{Bytes, Wrong};

pub(super) struct Hello {
    pub(super) input_bytes: u8,
    pub(super) name: String,
    pub(super) nonce: u64,
}

pub(super) struct Welcome {
    pub(super) nonce: u64,
    pub(super) session: u128,
    pub(super) term: u32,
    pub(super) slot: Option<usize>,
    pub(super) slots: usize,
    pub(super) waits: bool,
    pub(super) from: u32,
}

pub(super) enum Control {
    Member { name: String },
    LastTick(u32),
    Activate(u32),
    Transfer { id: u16, tick: u32, bytes: u32 },
    Other,
}

/// A tick datagram; what needs the receiver's knowledge is as it stands on the wire.
pub(super) struct Ticked<'a> {
    pub(super) tag: u8,
    pub(super) sequence_low: u8,
    pub(super) ack_low: Option<u8>,
    pub(super) tick: Option<u32>,
    pub(super) clock: Option<Clock>,
    pub(super) hash: Option<(u32, u32)>,
    pub(super) control: Vec<(u32, Control)>,
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) batch: &'a [u8],
}

pub(super) struct Clock {
    pub(super) sent_us: u64,
}

pub(super) struct Chunk<'a> {
    pub(super) id: u16,
    pub(super) index: usize,
    pub(super) payload: &'a [u8],
}

pub(super) enum Datagram<'a> {
    Ticked(Ticked<'a>),
    Hello(Hello),
    Welcome(Welcome),
    Bye { session_low: u64, reason: u32 },
    Chunk(Chunk<'a>),
    ChunkAck { id: u16 },
}

fn narrow<T: TryFrom<u128>>(value: u128) -> Result<T, Wrong> {
    T::try_from(value).map_err(|_| "a number beyond its width")
}

pub(super) fn read(datagram: &[u8]) -> Result<Datagram<'_>, Wrong> {
    if datagram.len() > 1180 {
        return Err("longer than a datagram may be");
    }
    let mut bytes = Bytes(datagram);
    let first = bytes.byte()?;
    let read = match first {
        0x40..=0xbf => return ticked(first, bytes).map(Datagram::Ticked),
        0xc0 => Datagram::Hello(hello(&mut bytes)?),
        0xc1 => Datagram::Welcome(welcome(&mut bytes)?),
        0xc4 => Datagram::Bye {
            session_low: narrow(bytes.marked()?)?,
            reason: narrow(bytes.marked()?)?,
        },
        0xc8 => {
            let id = narrow(bytes.fixed(2)?)?;
            let _transmission = bytes.fixed(4)?;
            let index = narrow(bytes.fixed(4)?)?;
            let payload = bytes.take(bytes.0.len())?;
            Datagram::Chunk(Chunk { id, index, payload })
        }
        0xc9 => {
            let id = narrow(bytes.fixed(2)?)?;
            let _transmission = bytes.fixed(4)?;
            let _delay_us = bytes.varint()?;
            let _next = bytes.varint()?;
            let bitmap = counted(&mut bytes)?;
            if bitmap.len() > 512 || bitmap.last() == Some(&0) {
                return Err("a bitmap that is too long");
            }
            Datagram::ChunkAck { id }
        }
        _ => return Err("an unknown kind"),
    };
    bytes.end()?;
    Ok(read)
}

fn counted<'a>(bytes: &mut Bytes<'a>) -> Result<&'a [u8], Wrong> {
    let count = usize::try_from(bytes.varint()?).map_err(|_| "a long section")?;
    bytes.take(count)
}

fn hello(bytes: &mut Bytes<'_>) -> Result<Hello, Wrong> {
    let [min, max] = [bytes.marked()?, bytes.marked()?];
    if min > 1 || max < 1 {
        return Err("another protocol");
    }
    let _game = bytes.text()?;
    let _build = bytes.text()?;
    let _schema_hash: u64 = narrow(bytes.marked()?)?;
    let _mode = bytes.byte()?;
    let _tick_hz: u16 = narrow(bytes.marked()?)?;
    let input_bytes = bytes.byte()?;
    let _spectator = bytes.flag()?;
    let name = bytes.text()?;
    let nonce = narrow(bytes.marked()?)?;
    let _resume: u64 = narrow(bytes.marked()?)?;
    let _confirmed: u32 = narrow(bytes.marked()?)?;
    let _schema_parts_wanted: u32 = narrow(bytes.marked()?)?;
    Ok(Hello {
        input_bytes,
        name,
        nonce,
    })
}

fn welcome(bytes: &mut Bytes<'_>) -> Result<Welcome, Wrong> {
    let nonce = narrow(bytes.marked()?)?;
    let _protocol: u16 = narrow(bytes.marked()?)?;
    let session = bytes.marked()?;
    let term = narrow(bytes.marked()?)?;
    let _member: u64 = narrow(bytes.marked()?)?;
    let slot = match bytes.byte()? {
        255 => None,
        slot => Some(usize::from(slot)),
    };
    let slots = usize::from(bytes.byte()?);
    let _seed: u64 = narrow(bytes.marked()?)?;
    let waits = bytes.byte()? != 0;
    let _desync_interval: u32 = narrow(bytes.marked()?)?;
    let _images: u32 = narrow(bytes.marked()?)?;
    let _heal = bytes.flag()?;
    let _resume: u64 = narrow(bytes.marked()?)?;
    let from = narrow(bytes.marked()?)?;
    let _resumed = bytes.flag()?;
    let _snapshot_ticks: u32 = narrow(bytes.marked()?)?;
    Ok(Welcome {
        nonce,
        session,
        term,
        slot,
        slots,
        waits,
        from,
    })
}

fn ticked(first: u8, mut bytes: Bytes<'_>) -> Result<Ticked<'_>, Wrong> {
    let sequence_low = bytes.byte()?;
    let ack_low = bytes.byte()?;
    let is_extended = first & 0x80 != 0;
    let flags = if is_extended { bytes.byte()? } else { 0 };
    if is_extended && flags == 0 || flags & 0x80 != 0 {
        return Err("empty or reserved flags");
    }
    let has = |bit: u8| flags & bit != 0;
    if has(0x02) && ack_low != 0 {
        return Err("an ack byte without an ack");
    }
    let mut ticked = Ticked {
        tag: first & 0x3f,
        sequence_low,
        ack_low: (!has(0x02)).then_some(ack_low),
        tick: None,
        clock: None,
        hash: None,
        control: Vec::new(),
        messages: Vec::new(),
        batch: &[],
    };
    if has(0x01) {
        ticked.tick = Some(narrow(bytes.varint()?.into())?);
    }
    if has(0x04) {
        let sent_us = bytes.varint()?;
        let _zero_us = bytes.varint()?;
        let _ack_delay_us = bytes.varint()?;
        let _margin = bytes.fixed(2)?;
        let _loss = bytes.byte()?;
        ticked.clock = Some(Clock { sent_us });
    }
    if has(0x08) {
        let tick = narrow(bytes.varint()?.into())?;
        ticked.hash = Some((tick, narrow(bytes.fixed(4)?)?));
    }
    if has(0x10) {
        ticked.control = control_section(Bytes(counted(&mut bytes)?))?;
    }
    if has(0x20) {
        ticked.messages = message_packet(Bytes(counted(&mut bytes)?))?;
    }
    if has(0x40) && (bytes.varint()? == 0 || has(0x02)) {
        return Err("nothing is missing");
    }
    ticked.batch = bytes.0;
    Ok(ticked)
}

fn control_section(mut bytes: Bytes<'_>) -> Result<Vec<(u32, Control)>, Wrong> {
    let mut number: u32 = narrow(bytes.varint()?.into())?;
    let mut messages = Vec::new();
    while !bytes.0.is_empty() {
        messages.push((number, control(Bytes(counted(&mut bytes)?))?));
        number += 1;
    }
    if messages.is_empty() {
        return Err("a control section without a message");
    }
    Ok(messages)
}

fn control(mut bytes: Bytes<'_>) -> Result<Control, Wrong> {
    let control = match bytes.marked()? {
        0 => {
            let _id: u64 = narrow(bytes.marked()?)?;
            let _role = bytes.byte()?;
            let _slot = bytes.byte()?;
            let name = bytes.text()?;
            let _connected = bytes.flag()?;
            Control::Member { name }
        }
        1 | 2 => {
            let _member_or_time = bytes.marked()?;
            Control::Other
        }
        3 => Control::LastTick(narrow(bytes.marked()?)?),
        4 => Control::Other,
        5 => Control::Activate(narrow(bytes.marked()?)?),
        6 => {
            let id = narrow(bytes.marked()?)?;
            let _purpose = bytes.marked()?;
            let tick = narrow(bytes.marked()?)?;
            let count = narrow(bytes.marked()?)?;
            let _digest: u64 = narrow(bytes.marked()?)?;
            Control::Transfer {
                id,
                tick,
                bytes: count,
            }
        }
        // Nothing diverges in these sessions.
        _ => return Err("a control message that does not belong here"),
    };
    bytes.end()?;
    Ok(control)
}

/// The messages in a packet; none in an ack.
fn message_packet(mut bytes: Bytes<'_>) -> Result<Vec<Vec<u8>>, Wrong> {
    let kind = bytes.byte()?;
    let _sequence = bytes.quic()?;
    let mut messages = Vec::new();
    match kind {
        0 | 1 => {
            if bytes.byte()? != kind {
                return Err("another channel than the kind's");
            }
            let count = bytes.take(2)?;
            for _ in 0..u16::from_be_bytes([count[0], count[1]]) {
                if kind == 0 {
                    bytes.quic()?;
                }
                let count = usize::try_from(bytes.quic()?).map_err(|_| "a long message")?;
                messages.push(bytes.take(count)?.to_vec());
            }
        }
        4 => {
            let [_end, _size, more] = [bytes.quic()?, bytes.quic()?, bytes.quic()?];
            for _ in 0..2 * more {
                bytes.quic()?;
            }
        }
        _ => return Err("a message packet of a kind that is not used"),
    }
    bytes.end()?;
    Ok(messages)
}
