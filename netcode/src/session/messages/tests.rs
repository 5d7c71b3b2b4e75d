//! Two ends over a seeded pipe, and packets that no honest end makes.

use super::*;
use crate::prng::Prng;
use crate::wire::bytes::DecodeError;

/// A pipe in one direction that loses, delays and duplicates.
struct Pipe {
    loss_per_million: u32,
    delay_ticks_max: u64,
    flying: Vec<(u64, Vec<u8>)>,
}

impl Pipe {
    fn new(loss_per_million: u32, delay_ticks_max: u64) -> Self {
        Self {
            loss_per_million,
            delay_ticks_max,
            flying: Vec::new(),
        }
    }

    fn send(&mut self, prng: &mut Prng, tick: u64, packet: Vec<u8>) {
        for _ in 0..=u64::from(prng.chance_per_million(50_000)) {
            if !prng.chance_per_million(self.loss_per_million) {
                let at = tick + 1 + prng.below(self.delay_ticks_max);
                self.flying.push((at, packet.clone()));
            }
        }
    }

    fn arriving(&mut self, tick: u64) -> Vec<Vec<u8>> {
        self.flying
            .extract_if(.., |(at, _)| *at <= tick)
            .map(|(_, packet)| packet)
            .collect()
    }
}

fn body(prng: &mut Prng, number: u32) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    let longest = if prng.below(4) == 0 { 896 } else { 12 };
    body.resize(4 + usize::try_from(prng.below(longest + 1)).unwrap(), 3);
    body
}

/// Sends `total` reliable messages each way, as many unreliable ones, and then waits for silence.
/// Returns the packets sent by both ends.
fn converse(seed: u64, loss_per_million: u32, delay_ticks_max: u64, total: u32) -> u64 {
    let mut prng = Prng::new(seed);
    let mut ends = [0; 2].map(|_| Messages::new(MessagesConfig::default()));
    let mut pipes = [0; 2].map(|_| Pipe::new(loss_per_million, delay_ticks_max));
    let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
    let mut received: [Vec<Vec<u8>>; 2] = Default::default();
    let mut quiet_ticks = 0;
    for tick in 0..60_000_u64 {
        let now = Time::from_micros(tick * 16_666);
        // From time to time the driver sleeps, so that everything falls due at once.
        if tick % 300 > 270 {
            continue;
        }
        quiet_ticks += 1;
        for end in 0..2 {
            let count = u32::try_from(sent[end].len()).unwrap();
            if count < total && prng.below(3) == 0 {
                let message = body(&mut prng, count);
                ends[end].send(Channel::Reliable, &message).unwrap();
                sent[end].push(message);
                ends[end].send(Channel::Unreliable, &[1, 2, 3]).unwrap();
            }
            let room = usize::try_from(200 + prng.below(950)).unwrap();
            if let Some(packet) = ends[end].pump(now, room) {
                assert!(packet.len() <= room);
                pipes[end].send(&mut prng, tick, packet);
                quiet_ticks = 0;
            }
            for packet in pipes[1 - end].arriving(tick) {
                ends[end].handle(&packet).unwrap();
                quiet_ticks = 0;
            }
            while let Some((channel, message)) = ends[end].receive() {
                match channel {
                    Channel::Reliable => received[end].push(message),
                    Channel::Unreliable => assert_eq!(message, [1, 2, 3]),
                }
            }
        }
        let all = total.try_into().unwrap();
        if quiet_ticks > 200 && sent.iter().all(|sent| sent.len() == all) {
            assert!(received[1] == sent[0], "seed {seed}");
            assert!(received[0] == sent[1], "seed {seed}");
            assert!(ends.iter().all(Messages::is_idle), "seed {seed}");
            return ends.iter().map(|end| end.stats().packets_sent).sum();
        }
    }
    panic!(
        "seed {seed}: {} and {} of {total} messages arrived, silence never",
        received[0].len(),
        received[1].len()
    );
}

#[test]
fn reliable_messages_arrive_once_in_order_and_then_the_link_is_quiet() {
    for seed in 0..6 {
        for loss in [0, 50_000, 200_000, 400_000] {
            converse(seed, loss, 1 + seed * 3, 150);
        }
    }
}

#[test]
fn an_idle_link_never_sends() {
    let mut ends = [0; 2].map(|_| Messages::new(MessagesConfig::default()));
    ends[0].send(Channel::Reliable, b"hello").unwrap();
    let mut packets = Vec::new();
    for tick in 0..1000_u64 {
        let now = Time::from_millis(tick * 16);
        for end in 0..2 {
            if let Some(packet) = ends[end].pump(now, 1000) {
                ends[1 - end].handle(&packet).unwrap();
                packets.push((tick, packet));
            }
        }
    }
    // The message and its ack, both at once, as in the wire document.
    let hello = b"\0\0\0\0\x01\0\x05hello".to_vec();
    assert_eq!(packets, [(0, hello), (0, vec![4, 0, 0, 0, 0])]);
    assert_eq!(
        ends[1].receive(),
        Some((Channel::Reliable, b"hello".to_vec()))
    );
    assert_eq!(ends[1].receive(), None);
}

#[test]
fn thousands_of_tiny_messages_never_make_a_large_packet() {
    let mut ends = [0; 2].map(|_| Messages::new(MessagesConfig::default()));
    for _ in 0..7000 {
        ends[0].send(Channel::Reliable, &[9]).unwrap();
    }
    let mut count = 0;
    // Nothing arrives for a while, then everything is due at once.
    for tick in 0..2000_u64 {
        let now = Time::from_millis(tick * 16);
        if (40..80).contains(&tick) {
            continue;
        }
        for end in 0..2 {
            if let Some(packet) = ends[end].pump(now, 1180) {
                assert!(packet.len() <= MESSAGE_PACKET_BYTES_MAX);
                if tick > 20 {
                    ends[1 - end].handle(&packet).unwrap();
                }
            }
        }
        count += core::iter::from_fn(|| ends[1].receive()).count();
    }
    assert_eq!(count, 7000);
    assert!(ends[0].is_idle() && ends[1].is_idle());
}

#[test]
fn misuse_is_an_error_and_the_link_goes_on() {
    let mut end = Messages::new(MessagesConfig::default());
    let long = vec![1; MESSAGE_BYTES_MAX + 1];
    let error = end.send(Channel::Reliable, &long).unwrap_err();
    assert_eq!(error, SendError::TooLarge { bytes: 901 });
    assert_eq!(
        error.to_string(),
        "a message of 901 B exceeds 900 B; send it as a transfer"
    );
    assert_eq!(end.send(Channel::Unreliable, &[]), Err(SendError::Empty));
    for channel in [Channel::Reliable, Channel::Unreliable] {
        let mut taken = 0;
        while end.send(channel, &long[1..]).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, (256 << 10) / (900 + 32));
    }
    assert!(end.pump(Time::ZERO, 1180).is_some());
    assert_eq!(end.fault(), None);
}

#[test]
fn a_game_that_takes_nothing_stops_the_peer_without_a_loss() {
    let config = MessagesConfig {
        receive_bytes_max: 4000,
        ..MessagesConfig::default()
    };
    let mut ends = [0; 2].map(|_| Messages::new(config));
    for number in 0..100_u8 {
        ends[0].send(Channel::Reliable, &[number; 500]).unwrap();
    }
    let mut received = Vec::new();
    for tick in 0..4000_u64 {
        let now = Time::from_millis(tick * 16);
        for end in 0..2 {
            if let Some(packet) = ends[end].pump(now, 1100) {
                ends[1 - end].handle(&packet).unwrap();
            }
        }
        assert!(ends[1].ready_bytes <= 2 * 4000 + 1200);
        assert!(ends[1].held_bytes <= 4000 + 1200);
        if tick > 500 {
            received.extend(ends[1].receive().map(|(_, message)| message[0]));
        }
    }
    assert!(ends[1].stats().packets_refused > 0);
    assert!(received.into_iter().eq(0..100));
}

#[test]
fn what_renet_cannot_bear_is_refused_with_its_name() {
    let long = [&[0, 0, 0, 0, 1, 0, 0x43, 0x85][..], &[0; 901]].concat();
    let cases: [(&[u8], MessageFault); 12] = [
        (&[], MessageFault::Malformed(DecodeError::Truncated)),
        (&[2, 0, 0, 0, 5, 1, 1, 7], MessageFault::Kind(2)),
        (&[3, 0, 1, 0, 5, 1, 1, 7], MessageFault::Kind(3)),
        (&[9], MessageFault::Kind(9)),
        (&[0, 0, 2, 0, 1, 0, 1, 7], MessageFault::Channel(2)),
        (&[1, 0, 0, 0, 1, 1, 7], MessageFault::Channel(0)),
        (&[0, 0, 0, 0, 0], MessageFault::Count(0)),
        (&[1, 0, 1, 4, 177, 1, 7], MessageFault::Count(1201)),
        (&[1, 0, 1, 0, 1, 0], MessageFault::Size(0)),
        (&long, MessageFault::Size(901)),
        (
            &[1, 0, 1, 0, 1, 1, 7, 7],
            MessageFault::Malformed(DecodeError::Trailing(1)),
        ),
        (&[4, 0, 9, 0, 0x40, 200], MessageFault::AckRanges(200)),
    ];
    for (packet, fault) in cases {
        let mut end = Messages::new(MessagesConfig::default());
        assert_eq!(end.handle(packet), Err(fault), "{packet:?}");
        assert_eq!(end.fault(), Some(fault));
        assert_eq!(end.send(Channel::Reliable, &[1]), Err(SendError::Ended));
        assert_eq!(end.pump(Time::ZERO, 1180), None);
    }
    let mut end = Messages::new(MessagesConfig::default());
    assert!(matches!(
        end.handle(&[4, 0, 5, 2, 1, 9, 0]),
        Err(MessageFault::Malformed(_))
    ));
    let far = [0, 0, 0, 0, 1, 0xc0, 0, 0, 1, 0, 0, 0, 0, 1, 7];
    let mut end = Messages::new(MessagesConfig::default());
    assert_eq!(end.handle(&far), Err(MessageFault::Ahead(1 << 32)));
}

#[test]
fn a_peer_that_numbers_badly_cannot_grow_our_memory() {
    let mut end = Messages::new(MessagesConfig::default());
    let mut prng = Prng::new(5);
    let mut longest = 0;
    for step in 0..20_000_u64 {
        // Every second number, now and then far ahead: as many ranges as can be.
        let base = if step % 4096 == 0 { 1 << 40 } else { 0 };
        let seq = (base + step * 2 + prng.below(900)) | 0xc000_0000_0000_0000;
        let mut packet = vec![0];
        packet.extend(seq.to_be_bytes());
        packet.extend([0, 0, 1, 0, 1, 7]);
        if end.handle(&packet).is_err() {
            break;
        }
        if let Some(ack) = end.pump(Time::from_millis(step), 1180) {
            longest = longest.max(ack.len());
        }
        while end.receive().is_some() {}
    }
    assert!(longest <= MESSAGE_PACKET_BYTES_MAX);
}

/// Random changes of real packets, and random bytes behind each kind.
#[test]
fn mutated_packets_never_panic() {
    let mut prng = Prng::new(99);
    let mut faults = 0;
    let mut ends = [0; 2].map(|_| Messages::new(MessagesConfig::default()));
    let mut tick = 0;
    for _ in 0..200_000 {
        tick += 1;
        let now = Time::from_millis(tick * 16);
        let end = usize::try_from(tick % 2).unwrap();
        if prng.below(4) == 0 {
            let message = body(&mut prng, 0);
            let channel = if prng.below(2) == 0 {
                Channel::Reliable
            } else {
                Channel::Unreliable
            };
            let _full = ends[end].send(channel, &message);
        }
        let mut packet = ends[end].pump(now, 1100).unwrap_or_else(|| {
            let kind = [0, 1, 4, 4, 0, 2, 3][usize::try_from(prng.below(7)).unwrap()];
            core::iter::once(kind)
                .chain((0..prng.below(30)).map(|_| prng.next_u64().to_le_bytes()[0] & 0x47))
                .collect()
        });
        for _ in 0..prng.below(4) {
            let index = usize::try_from(prng.below(packet.len().max(1) as u64)).unwrap();
            match prng.below(4) {
                0 => packet.truncate(index),
                1 => packet.insert(index, prng.next_u64().to_le_bytes()[0]),
                _ => {
                    if let Some(byte) = packet.get_mut(index) {
                        *byte ^= 1 << prng.below(8);
                    }
                }
            }
        }
        if let Err(fault) = ends[1 - end].handle(&packet) {
            assert_eq!(ends[1 - end].fault(), Some(fault));
            ends[1 - end] = Messages::new(MessagesConfig::default());
            faults += 1;
        }
        if ends[end].fault().is_some() {
            ends[end] = Messages::new(MessagesConfig::default());
        }
        while ends[1 - end].receive().is_some() {}
    }
    assert!(faults > 10_000, "{faults}: the storm was too mild");
    assert!(
        faults < 190_000,
        "{faults}: too few packets passed the filter"
    );
}

#[test]
fn a_long_message_without_room_blocks_no_ack_and_says_what_it_wants() {
    let mut ends = [0; 2].map(|_| Messages::new(MessagesConfig::default()));
    assert_eq!(ends[0].room_wanted(), 0);
    ends[0].send(Channel::Reliable, &[1; 900]).unwrap();
    ends[1].send(Channel::Reliable, &[2]).unwrap();
    let hello = ends[1].pump(Time::ZERO, 100).unwrap();
    ends[0].handle(&hello).unwrap();
    let ack = ends[0].pump(Time::ZERO, 100).unwrap();
    ends[1].handle(&ack).unwrap();
    assert!(ends[1].is_idle());
    let wanted = ends[0].room_wanted();
    assert_eq!(ends[0].pump(Time::ZERO, 900), None);
    let packet = ends[0].pump(Time::ZERO, wanted).unwrap();
    assert!(packet.len() <= wanted && wanted <= MESSAGE_PACKET_BYTES_MAX);
    // renet adds what it has acked before to the packets of a busy moment.
    assert_eq!(ends[0].pump(Time::ZERO, 900).unwrap()[0], filter::KIND_ACK);
    // The long one is lost. The resend waits for room too.
    let later = Time::from_millis(200);
    assert_eq!(ends[0].pump(later, 900), None);
    let wanted = ends[0].room_wanted();
    let packet = ends[0].pump(later, wanted).unwrap();
    ends[1].handle(&packet).unwrap();
    assert_eq!(ends[1].receive(), Some((Channel::Reliable, vec![1; 900])));
}
