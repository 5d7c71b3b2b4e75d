//! A client of a run: what the host keeps for it, what it holds, and the paths between both.

use std::sync::Arc;

use phalanx_netcode::statesync::{ReadError, Receiver, Subscription};
use phalanx_netcode::tick::{Seq, Tick};

use super::channel::Channel;

/// Datagrams of acks behind the newest that a report tells of.
const MASK: u32 = 64;

/// A datagram from the host.
#[derive(Clone, Debug)]
pub(crate) struct Down {
    pub(crate) seq: u32,
    pub(crate) sent_at: Tick,
    pub(crate) body: Vec<u8>,
}

/// A report of a client: its newest datagram, and those before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Up {
    pub(crate) newest: u32,
    pub(crate) mask: u64,
}

pub(crate) struct Client {
    pub(crate) subscription: Subscription,
    pub(crate) receiver: Receiver,
    pub(crate) down: Channel<Down>,
    pub(crate) up: Channel<Up>,
    pub(crate) next_seq: u32,
    /// Numbers below have had their answer.
    pub(crate) answered: u32,
    pub(crate) waiting: Vec<u32>,
    pub(crate) received: Option<Up>,
    /// What a transfer brings, and when; then when the host knows.
    pub(crate) transfer: Option<(u32, Arc<[u8]>)>,
    pub(crate) transferred: Option<u32>,
    pub(crate) sees_all: bool,
    /// For a client that sees everything within a distance of a point.
    pub(crate) spot: Option<[f32; 3]>,
    /// The newest body.
    pub(crate) sent: Vec<u8>,
    /// Ticks since the newest datagram to it.
    pub(crate) calm_ticks: u32,
}

impl Client {
    pub(crate) fn take_datagram(&mut self, down: &Down) -> bool {
        if let Some(received) = self.received {
            if down.seq == received.newest {
                return false;
            }
            if down.seq < received.newest {
                let behind = received.newest - down.seq - 1;
                if behind >= MASK || received.mask & 1 << behind != 0 {
                    return false;
                }
            }
        }
        if !down.body.is_empty() {
            match self.receiver.read(down.sent_at, &down.body) {
                Ok(_) => {}
                Err(ReadError::OldEpoch | ReadError::TooOld) => return false,
                Err(error) => {
                    panic!("{error}: {:?} at {}", down.body, down.sent_at);
                }
            }
        }
        let received = self.received.get_or_insert(Up {
            newest: down.seq,
            mask: 0,
        });
        if down.seq > received.newest {
            let ahead = down.seq - received.newest;
            received.mask = match ahead {
                0..MASK => received.mask << ahead | 1 << (ahead - 1),
                MASK => 1 << (MASK - 1),
                _ => 0,
            };
            received.newest = down.seq;
        } else if down.seq < received.newest {
            received.mask |= 1 << (received.newest - down.seq - 1);
        }
        !down.body.is_empty()
    }

    pub(crate) fn take_report(&mut self, up: Up) {
        let subscription = &mut self.subscription;
        self.waiting.retain(|&seq| {
            if seq > up.newest {
                return true;
            }
            let behind = up.newest - seq;
            let arrived = behind == 0 || behind <= MASK && up.mask & 1 << (behind - 1) != 0;
            if arrived {
                subscription.on_ack(Seq::new(seq));
            } else if behind > 2 {
                subscription.on_lost(Seq::new(seq));
            } else {
                return true;
            }
            false
        });
        self.answered = self.answered.max(up.newest);
    }
}
