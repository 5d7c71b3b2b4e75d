//! A toy session: a log of ticks with the inputs of clients, chained by hashes.

use std::collections::BTreeMap;

use phalanx_netcode::hash::mix;
use phalanx_netcode::migration::Authority;
use phalanx_netcode::tick::Tick;
use phalanx_netcode::wire::bytes::{Reader, put_varint};

/// A tick of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The term whose host ran it.
    pub(crate) term: u32,
    /// The inputs that acted: client and number.
    pub(crate) inputs: Vec<(u64, u32)>,
    /// Hash of the log up to here.
    pub(crate) hash: u64,
}

/// What a node holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Toy {
    log: Vec<Record>,
    /// The newest input of each client in the log.
    applied: BTreeMap<u64, u32>,
    shown: Tick,
}

impl Toy {
    pub(crate) fn log(&self) -> &[Record] {
        &self.log
    }

    pub(crate) fn at(&self, tick: Tick) -> Option<&Record> {
        let index = usize::try_from(tick.number()).unwrap().checked_sub(1)?;
        self.log.get(index)
    }

    pub(crate) fn applied(&self, client: u64) -> u32 {
        self.applied.get(&client).copied().unwrap_or(0)
    }

    fn top_hash(&self) -> u64 {
        self.log.last().map_or(7, |record| record.hash)
    }

    /// Runs a tick.
    pub(crate) fn step(&mut self, term: u32, inputs: Vec<(u64, u32)>) {
        let mut hash = mix(self.top_hash(), u64::from(term));
        for &(client, seq) in &inputs {
            hash = mix(hash, client << 32 | u64::from(seq));
            self.applied.insert(client, seq);
        }
        self.log.push(Record { term, inputs, hash });
    }

    /// Takes a record behind the newest, if it belongs there.
    pub(crate) fn append(&mut self, record: &Record) -> bool {
        let newest = self.log.len();
        self.step(record.term, record.inputs.clone());
        if self.top_hash() == record.hash {
            return true;
        }
        self.truncate(Tick::new(u32::try_from(newest).unwrap()));
        false
    }

    pub(crate) fn truncate(&mut self, tick: Tick) {
        let length = usize::try_from(tick.number()).unwrap();
        if length >= self.log.len() {
            return;
        }
        self.log.truncate(length);
        self.applied.clear();
        for record in &self.log {
            for &(client, seq) in &record.inputs {
                self.applied.insert(client, seq);
            }
        }
    }

    pub(crate) fn show(&mut self, tick: Tick) -> bool {
        let is_new = tick > self.shown;
        self.shown = self.shown.max(tick);
        is_new
    }

    /// Takes records that a vote or a commit carried; those that are here already are passed over.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        let Ok(mut tick) = reader.varint_u32().map(Tick::new) else {
            return;
        };
        while !reader.is_empty() {
            let Ok(record) = read(&mut reader) else {
                return;
            };
            tick = tick.next();
            if tick == self.newest().next() {
                self.step(record.0, record.1);
            }
        }
    }
}

type Content = (u32, Vec<(u64, u32)>);

fn read(reader: &mut Reader<'_>) -> Result<Content, phalanx_netcode::wire::bytes::DecodeError> {
    let term = reader.varint_u32()?;
    let count = reader.varint_u32()?;
    let mut inputs = Vec::new();
    for _ in 0..count {
        inputs.push((reader.u64()?, reader.varint_u32()?));
    }
    Ok((term, inputs))
}

impl Authority for Toy {
    fn newest(&self) -> Tick {
        Tick::new(u32::try_from(self.log.len()).unwrap())
    }

    fn shown(&self) -> Tick {
        self.shown
    }

    fn records_after(&self, after: Tick, room: usize, out: &mut Vec<u8>) -> Tick {
        let mut upto = after;
        put_varint(out, u64::from(after.number()));
        while let Some(record) = self.at(upto.next()) {
            let before = out.len();
            put_varint(out, u64::from(record.term));
            put_varint(out, record.inputs.len() as u64);
            for &(client, seq) in &record.inputs {
                out.extend_from_slice(&client.to_le_bytes());
                put_varint(out, u64::from(seq));
            }
            if out.len() > room {
                out.truncate(before);
                break;
            }
            upto = upto.next();
        }
        upto
    }

    fn hash(&self, tick: Tick) -> Option<u64> {
        self.at(tick).map(|record| record.hash)
    }
}
