//! A standby over a bad network, and what goes over it.

use crate::id::Term;
use crate::prng::Prng;
use crate::statesync::standby::{
    STANDBY_PART_BYTES, StandbyAck, StandbyFeed, StandbyState, StandbyStream, WholeState,
};

pub(super) struct Line {
    pub(super) feed: StandbyFeed,
    pub(super) standby: StandbyState,
    /// When it arrives, and the bytes.
    down: Vec<(u32, Vec<u8>)>,
    up: Vec<(u32, Vec<u8>)>,
    whole: Option<(u32, WholeState)>,
    pub(super) loss: u64,
    delay: u64,
    prng: Prng,
}

impl Line {
    pub(super) fn new(stream: &StandbyStream, (loss, delay): (u64, u64), seed: u64) -> Self {
        Self {
            feed: StandbyFeed::new(stream),
            standby: StandbyState::new(stream.schema(), Term(1)),
            down: Vec::new(),
            up: Vec::new(),
            whole: None,
            loss,
            delay,
            prng: Prng::with_stream(seed, 1),
        }
    }

    fn arrival(&mut self, now: u32) -> Option<u32> {
        (self.prng.below(100) >= self.loss)
            .then(|| now + u32::try_from(self.delay + self.prng.below(self.delay + 1)).unwrap())
    }

    /// One tick: sends what is new, delivers what is due.
    pub(super) fn tick(&mut self, now: u32, stream: &mut StandbyStream) {
        if self.feed.needs_whole() {
            let whole = self.feed.whole(stream).unwrap();
            self.whole = Some((now + 20, whole));
        }
        self.feed.begin_tick(stream);
        let mut part = Vec::new();
        while self.feed.next_part(&mut part) {
            assert!(part.len() <= STANDBY_PART_BYTES + 18);
            for _ in 0..=u64::from(self.prng.below(50) == 0) {
                if let Some(at) = self.arrival(now) {
                    self.down.push((at, part.clone()));
                }
            }
            part.clear();
        }
        if let Some((_, whole)) = self.whole.take_if(|(at, _)| *at <= now) {
            assert_eq!(self.standby.install_whole(&whole.bytes), Ok(whole.tick));
            self.feed.whole_arrived();
        }
        for (_, bytes) in self.down.extract_if(.., |(at, _)| *at <= now) {
            self.standby.handle_part(&bytes).unwrap();
        }
        let mut ack = Vec::new();
        self.standby.ack().encode(&mut ack);
        if let Some(at) = self.arrival(now) {
            self.up.push((at, ack));
        }
        for (_, bytes) in self.up.extract_if(.., |(at, _)| *at <= now) {
            self.feed
                .on_ack(stream, &StandbyAck::decode(&bytes).unwrap());
        }
    }

    pub(super) fn newest(&self) -> u32 {
        self.standby.newest().map_or(0, |tick| tick.number())
    }
}
