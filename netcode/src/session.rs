//! What two peers of a session share, whatever the mode of play: carriers of messages and bytes.
//!
//! Everything here is a pure state machine: time, bytes and sequence numbers are arguments. The
//! node asks each carrier for bytes that fit the room left in the tick's datagram, and hands over
//! what arrived.

pub mod acted;
pub mod bucket;
pub mod bulk;
pub mod clock;
pub mod close;
pub mod config;
pub mod control;
pub mod handshake;
pub mod hosting;
pub mod introduction;
pub mod mesh;
pub mod messages;
pub mod outbox;
pub mod peer;
pub mod roster;
pub mod statistics;
