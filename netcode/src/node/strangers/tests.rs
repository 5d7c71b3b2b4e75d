use std::sync::Arc;

use super::*;
use crate::id::Term;
use crate::migration::{Certificate, TermMember, TermMessage, TermRoster};
use crate::prng::Prng;
use crate::session::config::{GameInfo, JoinConfig, Mode, Role as Part};
use crate::session::control::Route;
use crate::session::roster::Member;
use crate::state::Schema;
use crate::tick::TickRate;
use crate::wire::header::kind;

/// The node under test, and others.
const OWN: MemberId = MemberId(5);
const HOST: MemberId = MemberId(1);
const NEAR: MemberId = MemberId(2);
const FAR: MemberId = MemberId(9);
/// In nobody's roster.
const NOBODY: MemberId = MemberId(77);
const KEY: PairKey = PairKey(0xabc);

/// How the others reach the node.
const TO_NODE: Path = Path(1000);

fn path_to(member: MemberId) -> Path {
    Path(u32::try_from(member.0).unwrap())
}

fn address(byte: u8) -> Address {
    Address::new(&[byte, 1]).unwrap()
}

fn player(id: MemberId) -> Member {
    Member {
        id,
        role: Part::Player,
        slot: None,
        name: "somebody".into(),
        connected: true,
    }
}

/// A node among members that it has met.
struct Field {
    node: Node,
    met: BTreeMap<MemberId, Mesh>,
    now: Time,
}

impl Field {
    /// A client that has met these; all but [`NOBODY`] are in its roster.
    fn new(met: &[MemberId]) -> Self {
        let game = GameInfo {
            game: "strangers".into(),
            build: "1".into(),
            schema: Arc::new(Schema::new(Vec::new()).unwrap()),
            mode: Mode::Lockstep,
            tick_rate: TickRate::default(),
            input_bytes: 1,
        };
        let now = Time::from_millis(50_000);
        let config = JoinConfig {
            // Its host does not answer.
            join_us: u64::MAX / 2,
            ..JoinConfig::new(game, "own")
        };
        let mut node = Node::join(config, Path(99), now).unwrap();
        node.core.info.member = OWN;
        for id in [OWN, HOST, NEAR, FAR, MemberId(3), MemberId(4)] {
            node.core.roster.set(player(id));
        }
        node.mesh = Some(Box::new(Mesh::new(OWN)));
        let mut field = Self {
            node,
            met: BTreeMap::new(),
            now,
        };
        for &id in met {
            let key = PairKey(u128::from(id.0));
            let mesh = field.node.mesh.as_mut().unwrap();
            mesh.meet(now, id, key, &Route::Accepts(vec![1]));
            let mut other = Mesh::new(id);
            other.meet(now, OWN, key, &Route::Opens(vec![1]));
            assert!(other.poll_open(now).is_some());
            other.handle_path_open(now, OWN, Some(TO_NODE), None);
            other.handle_path_opened(now, TO_NODE);
            field.met.insert(id, other);
        }
        field.exchange();
        for &id in met {
            assert!(field.mesh().is_confirmed(id), "{id}");
        }
        field
    }

    fn mesh(&self) -> &Mesh {
        self.node.mesh.as_ref().unwrap()
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_micros(ms * 1000);
        self.exchange();
    }

    /// All that is to be said arrives at once.
    fn exchange(&mut self) {
        let now = self.now;
        let mut out = Vec::new();
        for _ in 0..6 {
            for (id, mesh) in &mut self.met {
                while mesh.poll_transmit(now, &mut out).is_some() {
                    self.node.handle_datagram(now, path_to(*id), &out);
                    out.clear();
                }
            }
            self.node.handle_timeout(now);
            while let Some(path) = self.node.poll_transmit(now, &mut out) {
                let mut met = self.met.iter_mut();
                if let Some((_, mesh)) = met.find(|(id, _)| path_to(**id) == path)
                    && out.first() == Some(&kind::MESH)
                {
                    mesh.handle_datagram(now, TO_NODE, &out).unwrap();
                }
                out.clear();
            }
        }
    }

    /// `from` says something to the node.
    fn say(&mut self, from: MemberId, message: Vec<u8>) {
        self.met.get_mut(&from).unwrap().send(OWN, message).unwrap();
        self.exchange();
    }

    fn tell(&mut self, from: MemberId, word: &Introduction) {
        self.say(from, word.to_bytes());
    }

    /// What the node has said of introductions to `member` since it was asked last.
    fn heard(&mut self, member: MemberId) -> Vec<Introduction> {
        let mesh = self.met.get_mut(&member).unwrap();
        let words = core::iter::from_fn(|| mesh.poll_received());
        let words = words.filter(|it| Introduction::is_one(&it.bytes));
        words
            .map(|it| Introduction::decode(&it.bytes).unwrap())
            .collect()
    }

    /// The node hears from `from` that [`HOST`] hosts another term.
    fn follow(&mut self, from: MemberId) {
        let host = TermMember {
            id: HOST,
            incarnation: 1,
            can_host: true,
            is_voter: true,
            wants_vote: true,
        };
        let news = TermMessage::NewTerm {
            seq: 0,
            suspect_ms: 150,
            certificate: Certificate { votes: Vec::new() },
            roster: TermRoster::founding(Term(4), host),
        };
        self.say(from, news.to_bytes());
        assert_eq!(self.node.terms().unwrap().host(), Some(HOST));
    }

    /// The link says where those are of whom it is asked: as many as that.
    fn tell_addresses(&mut self) -> usize {
        let mut asked = Vec::new();
        while let Some(path) = self.node.poll_address() {
            asked.push(path);
        }
        for &path in &asked {
            let byte = u8::try_from(path.0).unwrap();
            self.node
                .handle_address(self.now, path, Some(address(byte)));
        }
        self.exchange();
        asked.len()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.node.statistics().drops.of(reason)
    }
}

fn ask(member: MemberId) -> Introduction {
    Introduction::Ask { member, key: KEY }
}

fn meet(member: MemberId, key: PairKey) -> Introduction {
    Introduction::Meet {
        member,
        key,
        address: address(9),
    }
}

#[test]
fn a_neighbour_introduces_two_that_it_has_met_once_per_second() {
    let mut field = Field::new(&[HOST, NEAR, FAR]);
    field.follow(NEAR);
    field.tell(HOST, &ask(FAR));
    assert_eq!(field.tell_addresses(), 2);
    assert_eq!(
        field.heard(HOST),
        [Introduction::Meet {
            member: FAR,
            key: KEY,
            address: address(9),
        }]
    );
    assert_eq!(
        field.heard(FAR),
        [Introduction::Meet {
            member: HOST,
            key: KEY,
            address: address(1),
        }]
    );
    assert_eq!(field.heard(NEAR), []);
    // Not again for a second, unless the other one asks, too: the first may have asked too early. The
    // secret stays.
    field.tell(HOST, &ask(FAR));
    assert_eq!(field.tell_addresses(), 0);
    let other = Introduction::Ask {
        member: HOST,
        key: PairKey(3),
    };
    field.tell(FAR, &other);
    assert_eq!(field.tell_addresses(), 2);
    assert_eq!(field.heard(HOST), [meet(FAR, KEY)]);
    assert_eq!(field.heard(FAR).len(), 1);
    field.tell(FAR, &other);
    assert_eq!(field.drops(DropReason::RateLimited), 2);
    field.wait(1000);
    field.tell(FAR, &ask(HOST));
    assert_eq!(field.tell_addresses(), 2);
    assert_eq!((field.heard(HOST).len(), field.heard(FAR).len()), (1, 1));
}

#[test]
fn only_members_that_it_has_met_and_the_host_are_introduced() {
    let mut field = Field::new(&[HOST, NEAR, FAR]);
    // Nobody is known to host.
    field.tell(HOST, &ask(FAR));
    field.follow(NEAR);
    // Two of whom none hosts; itself; the sender; whom the roster does not name.
    for (from, member) in [(NEAR, FAR), (HOST, OWN), (HOST, HOST), (HOST, NOBODY)] {
        field.tell(from, &ask(member));
    }
    assert_eq!(field.drops(DropReason::Unexpected), 4);
    // Known, but not met: that is nobody's fault.
    field.tell(HOST, &ask(MemberId(3)));
    field.tell(HOST, &ask(OWN));
    assert_eq!(field.drops(DropReason::Unexpected), 4);
    assert_eq!(field.tell_addresses(), 0);
    for id in [HOST, NEAR, FAR] {
        assert_eq!(field.heard(id), []);
    }
    // A link that cannot say where they are.
    field.tell(HOST, &ask(FAR));
    while let Some(path) = field.node.poll_address() {
        field.node.handle_address(field.now, path, None);
    }
    field.exchange();
    assert_eq!(field.heard(HOST), []);
    assert!(field.node.strangers.waiting.is_empty());
}

#[test]
fn words_pass_between_two_that_were_introduced_only() {
    let mut field = Field::new(&[HOST, NEAR, FAR]);
    field.follow(NEAR);
    let invite = |member| Introduction::Invite {
        member,
        public_key: [3; 32],
    };
    let part = |member| Introduction::Invitation {
        member,
        part: 0,
        parts: 1,
        bytes: vec![1, 2],
    };
    field.tell(HOST, &invite(FAR));
    field.tell(FAR, &part(HOST));
    assert_eq!(field.drops(DropReason::Unexpected), 2);
    field.tell(HOST, &ask(FAR));
    field.tell_addresses();
    for id in [HOST, FAR] {
        assert_eq!(field.heard(id).len(), 1);
    }
    field.tell(HOST, &invite(FAR));
    assert_eq!(field.heard(FAR), [invite(HOST)]);
    field.tell(FAR, &part(HOST));
    assert_eq!(field.heard(HOST), [part(FAR)]);
    // A third that puts itself between them.
    field.tell(NEAR, &part(HOST));
    assert_eq!(field.drops(DropReason::Unexpected), 3);
    // No more than a burst at once.
    for _ in 0..200 {
        field.tell(HOST, &invite(FAR));
    }
    assert!((50..70).contains(&field.heard(FAR).len()));
    // And not for ever.
    field.wait(31_000);
    field.tell(HOST, &invite(FAR));
    assert_eq!(field.heard(FAR), []);
}

#[test]
fn who_follows_a_host_that_it_has_not_met_asks_whom_it_has_met() {
    let mut field = Field::new(&[NEAR, FAR]);
    field.follow(NEAR);
    field.wait(100);
    let words = [NEAR, FAR].map(|id| field.heard(id));
    let [Introduction::Ask { member: HOST, key }] = words[0][..] else {
        panic!("{words:?}");
    };
    assert_eq!(words[1], words[0], "the same secret to all");
    // Once per second.
    field.wait(900);
    assert_eq!(field.heard(NEAR), []);
    field.wait(300);
    assert_eq!(field.heard(NEAR), [Introduction::Ask { member: HOST, key }]);
    // It is told, and so is the host, which has the lower id: it opens the path.
    field.tell(FAR, &meet(HOST, key));
    assert_eq!(field.node.poll_open(field.now), None);
    let mut host = Mesh::new(HOST);
    host.meet_stranger(field.now, FAR, OWN, key, address(5));
    assert!(host.poll_open(field.now).is_some());
    host.handle_path_open(field.now, OWN, Some(TO_NODE), None);
    host.handle_path_opened(field.now, TO_NODE);
    field.met.insert(HOST, host);
    field.exchange();
    assert!(field.mesh().is_confirmed(HOST));
    // They have met: nobody is asked any more, and nobody introduces them again.
    field.wait(3000);
    assert!(!field.heard(NEAR).iter().any(|word| *word == ask(HOST)));
    field.heard(NEAR);
    field.wait(3000);
    assert_eq!(field.heard(NEAR), []);
    field.tell(NEAR, &meet(HOST, KEY));
    assert_eq!(field.mesh().introducer(HOST), None);
}

#[test]
fn strangers_are_taken_when_they_are_wanted_only() {
    let mut field = Field::new(&[NEAR]);
    // A host is heard: nobody else has to introduce.
    let Role::Client(client) = &mut field.node.role else {
        panic!("it joins");
    };
    client.peer.heard_at = field.now;
    for member in [FAR, HOST, OWN, NEAR, NOBODY] {
        field.tell(NEAR, &meet(member, KEY));
    }
    assert_eq!(field.drops(DropReason::Unexpected), 5);
    assert_eq!(field.mesh().members().count(), 1);
    // It is silent: whoever hosts next may have to be met. Still only members.
    field.wait(100);
    field.tell(NEAR, &meet(NOBODY, KEY));
    assert_eq!(field.drops(DropReason::Unexpected), 6);
    field.tell(NEAR, &meet(FAR, KEY));
    assert_eq!(field.mesh().introducer(FAR), Some(NEAR));
    let opening = field.node.poll_open(field.now).unwrap();
    assert_eq!((opening.member, opening.address), (FAR, address(9)));
    // The link needs an invitation: the neighbour is asked for it.
    field
        .node
        .handle_path_open(field.now, FAR, None, Some([8; 32]));
    field.exchange();
    let invite = Introduction::Invite {
        member: FAR,
        public_key: [8; 32],
    };
    assert_eq!(field.heard(NEAR), [invite]);
    let invitation = vec![4; 450];
    for word in parts_of(FAR, &invitation) {
        field.tell(NEAR, &word);
    }
    let opening = field.node.poll_open(field.now).unwrap();
    assert_eq!(opening.invitation, invitation);
    // One introduction by the same neighbour in half a second.
    field.tell(NEAR, &meet(FAR, PairKey(1)));
    assert_eq!(field.drops(DropReason::RateLimited), 1);
}

#[test]
fn who_accepts_a_path_invites_by_way_of_the_neighbour() {
    let mut field = Field::new(&[NEAR, FAR]);
    field.follow(NEAR);
    let invite = Introduction::Invite {
        member: HOST,
        public_key: [6; 32],
    };
    // Not before they were introduced.
    field.tell(NEAR, &invite);
    assert_eq!(field.node.poll_invite(), None);
    assert_eq!(field.drops(DropReason::Unexpected), 1);
    field.tell(NEAR, &meet(HOST, KEY));
    field.heard(FAR);
    field.tell(FAR, &invite);
    assert_eq!(field.node.poll_invite(), Some((HOST, [6; 32])));
    field.node.handle_invitation(HOST, Some(vec![7; 500]));
    field.exchange();
    let parts: Vec<_> = parts_of(HOST, &[7; 500]).collect();
    assert_eq!(parts.len(), 3);
    assert_eq!(field.heard(FAR), parts, "to the one that asked");
    // Invitations cost, so not for every word.
    field.tell(FAR, &invite);
    assert_eq!(field.node.poll_invite(), None);
    assert_eq!(field.drops(DropReason::RateLimited), 1);
}

/// A neighbour that lies about the secret and the address, before one that does not: the two meet.
#[test]
fn a_liar_does_not_keep_two_apart_whom_another_introduces() {
    let mut field = Field::new(&[NEAR, FAR]);
    field.follow(NEAR);
    let mut host = Mesh::new(HOST);
    host.meet_stranger(field.now, FAR, OWN, KEY, address(5));
    assert!(host.poll_open(field.now).is_some());
    host.handle_path_open(field.now, OWN, Some(TO_NODE), None);
    host.handle_path_opened(field.now, TO_NODE);
    field.met.insert(HOST, host);
    for lie in 0..40_u128 {
        field.tell(NEAR, &meet(HOST, PairKey(lie)));
        if lie == 20 {
            field.tell(FAR, &meet(HOST, KEY));
        }
        field.wait(50);
    }
    field.wait(1000);
    assert!(field.mesh().is_confirmed(HOST));
    // A path that is there is nobody's to change any more.
    let (path, drops) = (
        field.mesh().path(HOST),
        field.drops(DropReason::NotAuthentic),
    );
    for lie in 0..20_u128 {
        field.tell(NEAR, &meet(HOST, PairKey(lie)));
        field.wait(600);
    }
    assert_eq!(field.mesh().path(HOST), path);
    assert_eq!(field.drops(DropReason::NotAuthentic), drops);
}

/// Members that say whatever comes to mind: nothing grows beyond its limit, and paths that are there
/// stay.
#[test]
fn hostile_words_change_nothing_between_acquaintances() {
    for seed in 0..20 {
        let mut prng = Prng::new(seed);
        let mut field = Field::new(&[HOST, NEAR, FAR]);
        field.follow(NEAR);
        let someone = |prng: &mut Prng| match prng.below(4) {
            0 => MemberId(prng.next_u64()),
            _ => MemberId(prng.below(12)),
        };
        for _ in 0..500 {
            let from = [HOST, NEAR, FAR][usize::try_from(prng.below(3)).unwrap()];
            let member = someone(&mut prng);
            let word = match prng.below(5) {
                0 => ask(member),
                1 => meet(member, PairKey(prng.next_u64().into())),
                2 => Introduction::Invite {
                    member,
                    public_key: [5; 32],
                },
                3 => Introduction::Invitation {
                    member,
                    part: prng.next_u64().to_le_bytes()[0] % 3,
                    parts: 3,
                    bytes: vec![1; 200],
                },
                _ => {
                    let kind = 0x20 + prng.next_u64().to_le_bytes()[0] % 4;
                    let tail = (0..prng.below(60)).map(|_| prng.next_u64().to_le_bytes()[0]);
                    let noise: Vec<u8> = core::iter::once(kind).chain(tail).collect();
                    field.say(from, noise);
                    continue;
                }
            };
            field.tell(from, &word);
            if prng.below(4) == 0 {
                field.tell_addresses();
            }
            while field.node.poll_open(field.now).is_some() {}
            while let Some((member, _)) = field.node.poll_invite() {
                field.node.handle_invitation(member, Some(vec![1; 1000]));
            }
            field.wait(prng.below(300));
            let strangers = &field.node.strangers;
            assert!(strangers.pairs.len() <= PAIRS_MAX, "seed {seed}");
            assert!(strangers.waiting.len() <= WAITING_MAX, "seed {seed}");
            assert!(strangers.taken.len() <= TAKEN_MAX, "seed {seed}");
            assert!(strangers.sought.len() <= 1, "seed {seed}");
            assert!(
                field.mesh().members().count() <= 6,
                "seed {seed}: the roster's"
            );
        }
        for id in [HOST, NEAR, FAR] {
            assert!(field.mesh().is_confirmed(id), "seed {seed}: {id}");
            assert_eq!(field.mesh().path(id), Some(path_to(id)), "seed {seed}");
        }
    }
}

#[test]
fn what_is_remembered_has_a_limit() {
    let mut strangers = Strangers::default();
    let at = Time::from_millis(1000);
    let granted = (0..1000)
        .filter(|&id| strangers.introduce(at, MemberId(id), NOBODY, KEY).is_some())
        .count();
    assert_eq!(granted, PAIRS_MAX);
    let later = at.plus_micros(PAIR_LIFE_US);
    assert_eq!(strangers.introduce(later, HOST, FAR, KEY), Some(KEY));
    assert_eq!(strangers.pairs.len(), 1);
    let taken = (0..1000).filter(|&id| strangers.may_take(at, MemberId(id), NEAR));
    assert_eq!(taken.count(), TAKEN_MAX);
    assert!(strangers.may_take(at.plus_micros(TAKE_US), HOST, NEAR));
    assert_eq!(strangers.taken.len(), 1);
}
