//! A game of one number, which the inputs drive.

use std::sync::Arc;

use crate::id::NetId;
use crate::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot, Visibility,
};
use crate::statesync::standby::StandbyState;
use crate::tick::Tick;

pub(super) struct Game {
    pub(super) schema: Arc<Schema>,
    tick: u32,
    pub(super) number: u64,
}

impl Game {
    pub(super) fn new() -> Self {
        let kind = KindSchema {
            name: "number".to_owned(),
            version: 1,
            shape: KindShape::Resource,
            visibility: Visibility::HostOnly,
            fields: vec![FieldSchema::new("0", ExactType::U64)],
        };
        Self {
            schema: Arc::new(Schema::new(vec![kind]).unwrap()),
            tick: 0,
            number: 1,
        }
    }

    pub(super) fn step(&mut self, input: &[u8]) {
        self.tick += 1;
        self.number = crate::hash::mix(self.number, u64::from(input[0]));
    }

    pub(super) fn state(&self) -> Snapshot {
        let mut rows = KindRows::default();
        rows.push(NetId::NONE, |out| out.extend(self.number.to_le_bytes()));
        Snapshot {
            tick: Tick::new(self.tick),
            kinds: vec![rows],
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.state().hash(&self.schema).combined()
    }

    /// Does what the standby asks for.
    pub(super) fn obey(&mut self, standby: &mut StandbyState) {
        if let Some(held) = standby.to_import() {
            self.tick = held.state.tick.number();
            self.number = u64::from_le_bytes(held.state.kinds[0].bytes[..].try_into().unwrap());
            standby.imported(true);
        }
        let mut saved = (self.tick, self.number);
        while let Some(run) = standby.to_run() {
            assert_eq!(run.tick.number(), self.tick + 1);
            let asked = run.hash.is_some();
            self.step(&run.context.clone());
            if !standby.ran(asked.then(|| self.hash())) {
                (self.tick, self.number) = saved;
            } else if asked {
                saved = (self.tick, self.number);
            }
        }
    }
}
