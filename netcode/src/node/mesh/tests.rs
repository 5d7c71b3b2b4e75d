use super::*;
use crate::limits::{DATAGRAM_BYTES_MAX, INVITATION_PART_BYTES_MAX, MESH_OUTBOX_MESSAGES_MAX};
use crate::prng::Prng;

const LOW: MemberId = MemberId(1);
const HIGH: MemberId = MemberId(2);
const KEY: PairKey = PairKey(77);
/// How the two reach each other.
const TO_HIGH: Path = Path(20);
const TO_LOW: Path = Path(10);

fn at(ms: u64) -> Time {
    Time::from_millis(1000 + ms)
}

/// Two members that were introduced to each other.
struct Two {
    low: Mesh,
    high: Mesh,
    way_ms: u64,
    under_way: Vec<(u64, bool, Vec<u8>)>,
    sent: [u32; 2],
    /// Whether a datagram to high, or to low, is lost.
    lost: fn(&mut Prng) -> bool,
    prng: Prng,
}

impl Two {
    fn new(way_ms: u64) -> Self {
        let (mut low, mut high) = (Mesh::new(LOW), Mesh::new(HIGH));
        low.meet(at(0), HIGH, KEY, &Route::Opens(vec![4]));
        high.meet(at(0), LOW, KEY, &Route::Accepts(vec![3]));
        let opening = low.poll_open(at(0)).unwrap();
        assert_eq!(
            (opening.member, opening.address.as_bytes()),
            (HIGH, &[4][..])
        );
        assert_eq!(low.poll_open(at(0)), None, "it was asked once");
        low.handle_path_open(at(0), HIGH, Some(TO_HIGH), None);
        low.handle_path_opened(at(0), TO_HIGH);
        Self {
            low,
            high,
            way_ms,
            under_way: Vec::new(),
            sent: [0; 2],
            lost: |_| false,
            prng: Prng::new(1),
        }
    }

    /// Runs from one millisecond to another.
    fn run(&mut self, from_ms: u64, to_ms: u64) {
        for ms in from_ms..to_ms {
            let mut arrived: Vec<_> = self.under_way.extract_if(.., |it| it.0 <= ms).collect();
            for (_, to_high, bytes) in arrived.drain(..) {
                let result = if to_high {
                    self.high.handle_datagram(at(ms), TO_LOW, &bytes)
                } else {
                    self.low.handle_datagram(at(ms), TO_HIGH, &bytes)
                };
                assert_eq!(result, Ok(()));
            }
            for (index, mesh) in [&mut self.low, &mut self.high].into_iter().enumerate() {
                let mut out = Vec::new();
                while mesh.poll_transmit(at(ms), &mut out).is_some() {
                    self.sent[index] += 1;
                    assert!(out.len() <= DATAGRAM_BYTES_MAX);
                    let bytes = core::mem::take(&mut out);
                    if !(self.lost)(&mut self.prng) {
                        self.under_way.push((ms + self.way_ms, index == 0, bytes));
                    }
                }
            }
        }
    }

    /// One datagram from low to high that nobody has delivered.
    fn datagram(&mut self, ms: u64) -> Vec<u8> {
        let mut out = Vec::new();
        self.low.send(HIGH, vec![9]).unwrap();
        assert_eq!(self.low.poll_transmit(at(ms), &mut out), Some(TO_HIGH));
        out
    }
}

fn texts(mesh: &mut Mesh) -> Vec<Vec<u8>> {
    core::iter::from_fn(|| mesh.poll_received().map(|it| it.bytes)).collect()
}

#[test]
fn two_members_confirm_their_path_and_know_the_round_trip() {
    let mut two = Two::new(30);
    two.run(0, 2000);
    for (mesh, other, path) in [(&two.low, HIGH, TO_HIGH), (&two.high, LOW, TO_LOW)] {
        let peer = mesh.peer(other).unwrap();
        assert!(peer.is_confirmed);
        assert_eq!(mesh.rtt(other), Some(60_000));
        assert_eq!(
            (mesh.path(other), mesh.member_of(path)),
            (Some(path), Some(other))
        );
        // At four per second each way: it waits at most 250 ms for its echo, and is the newest
        // that came back for as long.
        let echoed = at(2000).micros_since(mesh.echoed_at(other).unwrap());
        assert!((60_000..=560_000).contains(&echoed), "{echoed}");
        assert!(at(2000).micros_since(mesh.heard(other).unwrap()) <= 280_000);
        assert_eq!(peer.loss, 0);
    }
    // The first ones confirm, then each sends four per second.
    let before = two.sent;
    assert!(before.iter().all(|&sent| sent <= 12), "{before:?}");
    two.run(2000, 12_000);
    assert_eq!([two.sent[0] - before[0], two.sent[1] - before[1]], [40, 40]);
}

#[test]
fn a_message_leaves_at_once_and_arrives_once() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    let mut sent = Vec::new();
    for number in 0..40_u8 {
        let message = vec![number; 100];
        two.low.send(HIGH, message.clone()).unwrap();
        sent.push(message);
    }
    assert_eq!(two.low.poll_timeout(), Time::ZERO);
    let before = two.sent[0];
    two.run(1000, 1001);
    assert_eq!(two.sent[0] - before, 4, "eleven fit one datagram");
    two.run(1001, 1010);
    assert_eq!(texts(&mut two.high), sent);
    assert_eq!(
        two.low.send(MemberId(9), vec![1]),
        Err(MeshError::NoPeer(MemberId(9)))
    );
    for size in [0, MESH_MESSAGE_BYTES_MAX + 1] {
        assert_eq!(
            two.low.send(HIGH, vec![1; size]),
            Err(MeshError::Size(size))
        );
    }
    // The largest one fits a datagram; of too many the oldest make room.
    two.low.send(HIGH, vec![1; MESH_MESSAGE_BYTES_MAX]).unwrap();
    for number in 0..MESH_OUTBOX_MESSAGES_MAX {
        two.low
            .send(HIGH, vec![u8::try_from(number).unwrap() + 1])
            .unwrap();
    }
    two.run(1010, 1020);
    let arrived = texts(&mut two.high);
    assert_eq!(arrived.len(), MESH_OUTBOX_MESSAGES_MAX);
    assert_eq!(arrived[0], [1]);
}

#[test]
fn a_path_comes_up_through_loss() {
    let mut two = Two::new(40);
    two.lost = |prng| prng.chance_per_million(500_000);
    two.run(0, 4000);
    assert!(two.low.peer(HIGH).unwrap().is_confirmed);
    assert!(two.high.peer(LOW).unwrap().is_confirmed);
    assert_eq!(two.low.rtt(HIGH), Some(80_000));
    two.run(4000, 60_000);
    let loss = two.high.peer(LOW).unwrap().loss;
    assert!((80..180).contains(&loss), "{loss} of 256");
}

#[test]
fn replayed_forged_and_foreign_datagrams_change_nothing() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    texts(&mut two.high);
    let bytes = two.datagram(1000);
    let mut forged = bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    let other = MemberId(7);
    two.high
        .meet(at(1000), other, PairKey(5), &Route::Accepts(vec![9]));
    let mut from_other = bytes.clone();
    let sender = 9;
    from_other[sender] = 7;
    let mut from_nobody = bytes.clone();
    from_nobody[sender] = 100;
    let third = Path(33);
    two.high.set_path(at(1000), other, Some(third));
    let cases: [(&[u8], Path, DropReason); 6] = [
        (&forged, TO_LOW, DropReason::NotAuthentic),
        (&bytes, third, DropReason::UnknownPath),
        (&from_other, third, DropReason::NotAuthentic),
        (&from_other, TO_LOW, DropReason::UnknownPath),
        (&from_nobody, TO_LOW, DropReason::UnknownPath),
        (&bytes[..10], TO_LOW, DropReason::Malformed),
    ];
    for (bytes, path, reason) in cases {
        assert_eq!(two.high.handle_datagram(at(1001), path, bytes), Err(reason));
    }
    assert_eq!(two.high.path(LOW), Some(TO_LOW));
    assert!(texts(&mut two.high).is_empty());
    assert_eq!(two.high.handle_datagram(at(1002), TO_LOW, &bytes), Ok(()));
    assert_eq!(
        two.high.handle_datagram(at(1003), TO_LOW, &bytes),
        Err(DropReason::Duplicate)
    );
    // Not even over a path that nobody has.
    assert_eq!(
        two.high.handle_datagram(at(1003), Path(99), &bytes),
        Err(DropReason::Duplicate)
    );
    assert_eq!(texts(&mut two.high), [[9]]);
    let drops = two.high.peer(LOW).unwrap().statistics.drops;
    assert_eq!(drops.of(DropReason::Duplicate), 2);
    assert_eq!(drops.of(DropReason::NotAuthentic), 1);
}

#[test]
fn what_was_overtaken_still_counts_within_the_window() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    let datagrams: Vec<Vec<u8>> = (0..70).map(|ms| two.datagram(1000 + ms)).collect();
    let mut deliver = |index: usize| {
        two.high
            .handle_datagram(at(1100), TO_LOW, &datagrams[index])
    };
    assert_eq!(deliver(69), Ok(()));
    assert_eq!(deliver(10), Ok(()));
    assert_eq!(deliver(10), Err(DropReason::Duplicate));
    assert_eq!(deliver(5), Ok(()));
    assert_eq!(deliver(4), Err(DropReason::TooOld));
}

#[test]
fn a_member_that_opens_another_path_is_followed_there() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    let late = two.datagram(1000);
    let next = two.datagram(1001);
    assert_eq!(two.high.handle_datagram(at(1005), Path(44), &next), Ok(()));
    assert_eq!(two.high.path(LOW), Some(Path(44)));
    assert_eq!(two.high.member_of(TO_LOW), None);
    assert!(
        !two.high.peer(LOW).unwrap().is_confirmed,
        "not over this one"
    );
    // What comes late over the old path does not bring it back.
    assert_eq!(
        two.high.handle_datagram(at(1006), TO_LOW, &late),
        Err(DropReason::UnknownPath)
    );
    assert_eq!(two.high.path(LOW), Some(Path(44)));
}

#[test]
fn a_closed_path_is_opened_again_by_the_same_member() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    two.low.handle_path_closed(at(1000), TO_HIGH);
    two.high.handle_path_closed(at(1000), TO_LOW);
    assert_eq!(two.high.poll_open(at(9000)), None, "the other one opens");
    assert_eq!(two.low.poll_open(at(1000)), None, "not at once");
    let again = two.low.poll_timeout();
    assert_eq!(two.low.poll_open(again), None, "the link is asked first");
    assert!(two.low.poll_reopen(again).is_some());
    two.low.handle_path_reopen(again, HIGH, None);
    let opening = two.low.poll_open(again).unwrap();
    assert_eq!(opening.member, HIGH);
    // The link cannot even try: later, and ever later.
    two.low.handle_path_open(again, HIGH, None, None);
    let mut waits = Vec::new();
    let mut now = again;
    for _ in 0..8 {
        let next = two.low.poll_timeout();
        waits.push(next.micros_since(now) / 1000);
        now = next;
        assert!(two.low.poll_open(now).is_some());
        two.low.handle_path_open(now, HIGH, None, None);
    }
    assert_eq!(waits, [1000, 2000, 4000, 8000, 8000, 8000, 8000, 8000]);
    assert_eq!(two.low.poll_wish(), None, "no invitation helps this link");
}

#[test]
fn an_invitation_comes_in_parts_and_is_used_at_once() {
    let mut two = Two::new(5);
    assert_eq!(two.high.poll_invite(), None);
    two.high.invite(LOW, &[1; 32]);
    assert_eq!(two.high.poll_invite(), Some((LOW, [1; 32])));
    assert_eq!(two.high.poll_invite(), None);
    two.high.invite(LOW, &[1; 31]);
    two.low.invite(HIGH, &[1; 32]);
    assert_eq!(
        (two.high.poll_invite(), two.low.poll_invite()),
        (None, None)
    );
    let invitation: Vec<u8> = (0..=255).cycle().take(1100).collect();
    two.high.handle_invitation(LOW, Some(invitation.clone()));
    assert_eq!(
        two.high.poll_wish(),
        Some(Wish::Invitation(LOW, invitation.clone()))
    );
    two.high.handle_invitation(LOW, None);
    assert_eq!(two.high.poll_wish(), None, "this link needs none");
    let mut low = Mesh::new(LOW);
    low.meet(at(0), HIGH, KEY, &Route::Opens(vec![4]));
    assert!(low.poll_open(at(0)).unwrap().invitation.is_empty());
    low.handle_path_open(at(0), HIGH, None, Some([8; 32]));
    assert_eq!(low.poll_wish(), Some(Wish::Invite(HIGH, [8; 32])));
    assert_eq!(low.poll_open(at(1)), None);
    let parts: Vec<&[u8]> = invitation.chunks(INVITATION_PART_BYTES_MAX).collect();
    let give = |low: &mut Mesh, part: usize| {
        let bytes = parts[part];
        let (part, parts) = (
            u8::try_from(part).unwrap(),
            u8::try_from(parts.len()).unwrap(),
        );
        low.take_invitation(HIGH, &Invitation { part, parts, bytes }, at(1));
    };
    // Parts that do not follow are no invitation.
    for part in [0, 1, 3, 4, 5] {
        give(&mut low, part);
    }
    assert_eq!(low.poll_open(at(1)), None);
    for part in 0..parts.len() {
        give(&mut low, part);
    }
    assert_eq!(low.poll_open(at(1)).unwrap().invitation, invitation);
    // It opens one path; the next one needs another.
    low.handle_path_open(at(1), HIGH, Some(TO_HIGH), None);
    low.leave_path(at(2), TO_HIGH);
    assert!(low.poll_open(at(9000)).unwrap().invitation.is_empty());
}

#[test]
fn a_new_secret_takes_over_without_a_gap() {
    for low_first in [true, false] {
        let mut two = Two::new(20);
        two.run(0, 1000);
        let key = PairKey(78);
        let tell = |two: &mut Two, to_low: bool, ms: u64| {
            if to_low {
                two.low.meet(at(ms), HIGH, key, &Route::Opens(vec![4]));
            } else {
                two.high.meet(at(ms), LOW, key, &Route::Accepts(vec![3]));
            }
        };
        tell(&mut two, low_first, 1000);
        two.run(1000, 1600);
        tell(&mut two, !low_first, 1600);
        // Each datagram in the whole time was accepted: `run` sees to that.
        two.run(1600, 8000);
        assert!(two.low.peer(HIGH).unwrap().is_confirmed);
        assert_eq!(two.low.poll_open(at(8000)), None, "the path stays");
        // Now the old one opens nothing any more.
        let mut old = Two::new(20);
        old.run(0, 1000);
        let bytes = old.datagram(1000);
        assert_eq!(
            two.high.handle_datagram(at(8000), TO_LOW, &bytes),
            Err(DropReason::NotAuthentic)
        );
    }
}

#[test]
fn whoever_is_forgotten_has_no_path() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    two.low.forget(HIGH);
    assert_eq!(two.low.poll_close(), Some(TO_HIGH));
    assert_eq!(two.low.member_of(TO_HIGH), None);
    assert_eq!(two.low.poll_timeout(), Time::FAR);
    // A path of ticks is not the mesh's to close.
    two.high.set_path(at(1000), LOW, Some(Path(50)));
    two.high.meet(at(1000), LOW, KEY, &Route::Apart);
    assert_eq!(two.high.poll_close(), None);
    assert_eq!(two.high.members().count(), 0);
    // An opening that comes too late is closed again.
    two.low
        .handle_path_open(at(1000), HIGH, Some(Path(60)), None);
    assert_eq!(two.low.poll_close(), Some(Path(60)));
}

#[test]
fn random_calls_keep_the_invariants() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut mesh = Mesh::new(LOW);
        let mut out = Vec::new();
        let mut below = |n: u64| prng.below(n);
        for step in 0..300 {
            let now = at(step * 40);
            let member = MemberId(below(6));
            let path = Path(u32::try_from(below(6)).unwrap());
            match below(11) {
                0 => mesh.meet(now, member, PairKey(3), &Route::Opens(vec![1])),
                1 => mesh.meet(now, member, PairKey(3), &Route::Accepts(vec![1])),
                2 => mesh.meet(now, member, PairKey(4), &Route::Here),
                3 => mesh.forget(member),
                4 => mesh.set_path(now, member, Some(path)),
                5 => mesh.handle_path_closed(now, path),
                6 => mesh.handle_path_opened(now, path),
                7 => {
                    if let Some(opening) = mesh.poll_open(now) {
                        mesh.handle_path_open(now, opening.member, Some(path), None);
                    }
                }
                8 => {
                    let mut sender = Mesh::new(member);
                    sender.meet(now, LOW, PairKey(3), &Route::Here);
                    sender.set_path(now, LOW, Some(Path(0)));
                    let mut bytes = Vec::new();
                    sender.poll_transmit(now, &mut bytes);
                    let _result = mesh.handle_datagram(now, path, &bytes);
                }
                9 => {
                    if let Some((member, old)) = mesh.poll_reopen(now) {
                        let way = (below(2) == 0).then_some(path).filter(|_| path != old);
                        mesh.handle_path_reopen(now, member, way);
                    }
                }
                _ => {
                    out.clear();
                    mesh.poll_transmit(now, &mut out);
                }
            }
            mesh.invariants();
        }
    }
}

/// Whoever lost a path goes back: first the one with the lower id, then the other one, each for as
/// long as the link knows a way.
#[test]
fn lost_paths_are_sought_by_both_ends_in_turn() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    two.low.handle_path_closed(at(1000), TO_HIGH);
    two.high.handle_path_closed(at(1000), TO_LOW);
    for (mesh, other, old, wait_ms) in [
        (&mut two.low, HIGH, TO_HIGH, 250),
        (&mut two.high, LOW, TO_LOW, 2000),
    ] {
        assert!(mesh.is_seeking());
        assert_eq!(mesh.poll_timeout(), at(1000 + wait_ms));
        assert_eq!(mesh.poll_reopen(at(999 + wait_ms)), None);
        assert_eq!(mesh.poll_open(at(999 + wait_ms)), None);
        let asked = mesh.poll_reopen(at(1000 + wait_ms));
        assert_eq!(asked, Some((other, old)));
        assert_eq!(mesh.poll_reopen(at(1000 + wait_ms)), None, "it was asked");
        // The first attempt comes to nothing; the next one waits for longer.
        let attempt = Path(old.0 + 1);
        mesh.handle_path_reopen(at(3000), other, Some(attempt));
        assert_eq!(mesh.path(other), Some(attempt));
        mesh.handle_path_closed(at(13_000), attempt);
        assert_eq!(mesh.poll_reopen(at(13_499)), None);
        assert_eq!(mesh.poll_reopen(at(13_500)), Some((other, attempt)));
        mesh.handle_path_reopen(at(13_500), other, None);
        assert!(!mesh.is_seeking(), "there is no way back");
        assert_eq!(mesh.poll_reopen(at(60_000)), None);
    }
    // Whoever can open a path in another way does so then.
    assert!(two.low.poll_open(at(60_000)).is_some());
    assert_eq!(two.high.poll_timeout(), Time::FAR);
}

#[test]
fn a_way_back_that_was_found_is_forgotten_and_a_path_that_was_left_is_not_sought() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    two.low.handle_path_closed(at(1000), TO_HIGH);
    assert_eq!(two.low.poll_reopen(at(1250)), Some((HIGH, TO_HIGH)));
    // Links of this test give the old path again.
    two.low.handle_path_reopen(at(1250), HIGH, Some(TO_HIGH));
    two.low.handle_path_opened(at(1260), TO_HIGH);
    assert!(two.low.is_seeking());
    two.run(1260, 1700);
    assert!(two.low.peer(HIGH).unwrap().is_confirmed);
    assert!(!two.low.is_seeking());
    // The count of attempts begins anew.
    two.low.handle_path_closed(at(1700), TO_HIGH);
    assert_eq!(two.low.poll_timeout(), at(1950));
    two.high.leave_path(at(1700), TO_LOW);
    assert!(!two.high.is_seeking());
    assert_eq!(two.high.poll_reopen(at(60_000)), None);
}

/// Of two paths that lead back the one stays that is heard first.
#[test]
fn an_attempt_is_closed_when_the_other_member_is_back_over_another_path() {
    let mut two = Two::new(5);
    two.run(0, 1000);
    two.high.handle_path_closed(at(1000), TO_LOW);
    assert_eq!(two.high.poll_reopen(at(3000)), Some((LOW, TO_LOW)));
    let attempt = Path(77);
    two.high.handle_path_reopen(at(3000), LOW, Some(attempt));
    let bytes = two.datagram(3100);
    assert_eq!(two.high.handle_datagram(at(3100), TO_LOW, &bytes), Ok(()));
    assert_eq!(two.high.path(LOW), Some(TO_LOW));
    assert_eq!(two.high.poll_close(), Some(attempt));
    assert_eq!(two.high.poll_close(), None);
}
