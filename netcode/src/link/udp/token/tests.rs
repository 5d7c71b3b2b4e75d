//! Join codes come back whole, and whatever else comes is refused.

use super::*;
use crate::prng::Prng;
use renetcode::{ClientAuthentication, NetcodeClient};

const NOW: Duration = Duration::from_secs(1_000_000);

fn mint() -> TokenMint {
    TokenMint::new([1; 32], 5, 10)
}

fn token() -> JoinToken {
    let address = "192.0.2.7:4000".parse().unwrap();
    mint().mint(42, address, NOW, 60).unwrap()
}

#[test]
fn join_codes_come_back_whole() {
    for address in ["192.0.2.7:4000", "[2001:db8::1]:65535"] {
        let address = address.parse().unwrap();
        let token = mint().mint(u64::MAX, address, NOW, 60).unwrap();
        let text = token.to_text();
        assert!(text.len() < 1570, "{} letters", text.len());
        assert_eq!(JoinToken::from_text(&text).unwrap(), token);
        let wrapped = text
            .as_bytes()
            .chunks(76)
            .map(|line| core::str::from_utf8(line).unwrap())
            .collect::<Vec<_>>()
            .join("\n  ");
        assert_eq!(JoinToken::from_text(&wrapped).unwrap(), token);
    }
}

#[test]
fn a_damaged_code_is_refused() {
    let text = token().to_text();
    let mut prng = Prng::new(3);
    for round in 0..2000 {
        let mut bytes = text.clone().into_bytes();
        let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
        let new = prng.next_u64().to_le_bytes()[0] & 0x7f;
        if bytes[at] == new {
            continue;
        }
        bytes[at] = new;
        if prng.below(4) == 0 {
            bytes.truncate(at);
        }
        let damaged = String::from_utf8(bytes).unwrap();
        let same_letters = damaged.split_whitespace().eq(text.split_whitespace());
        assert!(
            same_letters || JoinToken::from_text(&damaged).is_err(),
            "seed 3, round {round}"
        );
    }
    for text in ["", "hello", "phalanx1.", "phalanx1.A", "phalanx2.AAAA"] {
        assert!(JoinToken::from_text(text).is_err(), "{text:?}");
    }
    assert!(JoinToken::from_text(&"A".repeat(JOIN_CODE_BYTES_MAX + 1)).is_err());
}

#[test]
fn tokens_that_would_harm_renetcode_are_refused() {
    type Change = fn(&mut ConnectToken);
    let changes: [(&str, Change); 8] = [
        ("no address", |t| t.server_addresses[0] = None),
        ("two addresses", |t| {
            t.server_addresses[1] = t.server_addresses[0];
        }),
        ("expires first", |t| {
            t.expire_timestamp = t.create_timestamp - 1;
        }),
        ("no life", |t| t.expire_timestamp = t.create_timestamp),
        ("eternal", |t| t.expire_timestamp = u64::MAX),
        ("no timeout", |t| t.timeout_seconds = -1),
        ("version", |t| t.version_info[8] = b'2'),
        ("port 0", |t| t.server_addresses[0] = Some(SEALED_ADDRESS)),
    ];
    for (name, change) in changes {
        let mut inner = token().to_renetcode();
        change(&mut inner);
        assert!(JoinToken::checked(inner).is_err(), "{name}");
    }
}

#[test]
fn files_hold_join_codes() {
    let file = std::env::temp_dir().join(format!("phalanx-token-{}", std::process::id()));
    token().write_file(&file).unwrap();
    assert!(token().write_file(&file).is_err(), "nothing is overwritten");
    let read = JoinToken::read_file(&file);
    std::fs::remove_file(&file).unwrap();
    let read = read.unwrap();
    assert_eq!((read.client_id(), read.address()), (42, token().address()));
    assert!(matches!(
        JoinToken::read_file(&file),
        Err(TokenError::File(_))
    ));
}

#[test]
fn keys_stay_out_of_logs() {
    let text = format!("{:?} {:?}", token(), mint());
    assert!(!text.contains("key"), "{text}");
}

#[test]
fn base64_is_the_one_of_the_rfc() {
    for (plain, code) in [
        ("", ""),
        ("f", "Zg"),
        ("fo", "Zm8"),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg"),
        ("fooba", "Zm9vYmE"),
        ("foobar", "Zm9vYmFy"),
    ] {
        let mut out = String::new();
        encode_base64(plain.as_bytes(), &mut out);
        assert_eq!(out, code);
        assert_eq!(decode_base64(code).unwrap(), plain.as_bytes());
    }
    assert_eq!(decode_base64("Zh"), None, "bits beyond the end");
}

/// A token as bytes: a copy, a damaged one, or one whose fields are hostile behind a checksum that
/// is right, as whoever makes it himself can make it.
fn hostile_bytes(prng: &mut Prng, good: &[Vec<u8>; 2]) -> Vec<u8> {
    let below = |prng: &mut Prng, bound: usize| usize::try_from(prng.below(bound as u64)).unwrap();
    let mut bytes = good[below(prng, 2)].clone();
    bytes.truncate(bytes.len() - 4);
    for _ in 0..=below(prng, 3) {
        let len = bytes.len();
        // Most of a token is sealed; its few open fields are in front.
        let end = if prng.below(4) == 0 { len } else { len.min(60) };
        let at = below(prng, end.max(1));
        match prng.below(8) {
            0 if at < len => bytes[at] ^= 1 << prng.below(8),
            1 if at < len => bytes[at] = prng.next_u64().to_le_bytes()[0],
            2 if at < len => bytes[at] = [0, 0x7f, 0x80, 0xff][below(prng, 4)],
            3 if at < len => {
                let until = (at + below(prng, 12)).min(len);
                bytes[at..until].fill([0, 0xff][below(prng, 2)]);
            }
            4 if prng.below(8) == 0 => bytes.truncate(below(prng, len + 1)),
            5 => {
                let more = vec![0x80; below(prng, 12)];
                bytes.splice(at.min(len)..at.min(len), more);
            }
            6 if at < len => drop(bytes.drain(at..(at + below(prng, 10)).min(len))),
            _ => {}
        }
    }
    let mut checksum = hash::digest(&bytes).to_le_bytes();
    if prng.below(8) == 0 {
        checksum[below(prng, 4)] ^= 1 << prng.below(8);
    }
    bytes.extend_from_slice(&checksum[..4]);
    bytes
}

/// Letters of a join code, some of them changed, left out, doubled or foreign.
fn hostile_text(prng: &mut Prng, good: &str) -> String {
    let mut letters: Vec<char> = good.chars().collect();
    for _ in 0..=prng.below(3) {
        let at = usize::try_from(prng.below(letters.len().max(1) as u64)).unwrap();
        let foreign = ['=', '+', '/', '\u{e9}', '\0', '\u{1f409}', '.', ' '];
        let foreign = foreign[usize::try_from(prng.below(8)).unwrap()];
        match prng.below(6) {
            0 if at < letters.len() => letters[at] = foreign,
            1 => letters.truncate(at),
            2 => letters.insert(at.min(letters.len()), foreign),
            3 if at < letters.len() => drop(letters.remove(at)),
            4 => letters.extend_from_within(at.min(letters.len())..),
            _ if at < letters.len() => letters[at] = char::from(ALPHABET[at % 64]),
            _ => {}
        }
    }
    letters.into_iter().collect()
}

/// What a token must be before renetcode sees it.
fn assert_harmless(token: &JoinToken, what: &str) {
    let inner = token.to_renetcode();
    let life = inner.expire_timestamp - inner.create_timestamp;
    assert!((1..=TOKEN_LIFE_S_MAX).contains(&life), "{what}");
    assert!(
        (1..=TOKEN_TIMEOUT_S_MAX).contains(&inner.timeout_seconds),
        "{what}"
    );
    assert_eq!(inner.server_addresses[0], Some(token.address()), "{what}");
    assert!(
        inner.server_addresses[1..].iter().all(Option::is_none),
        "{what}"
    );
    assert_ne!(token.address().port(), 0, "{what}");
}

/// `PHALANX_STORM` raises or lowers the number of tokens.
#[test]
fn a_storm_of_mutated_tokens_yields_errors_or_harmless_tokens() {
    let storm = std::env::var("PHALANX_STORM").ok();
    let count = storm
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000_u64);
    let seed = 17;
    let mut prng = Prng::new(seed);
    let addresses = ["192.0.2.7:4000", "[2001:db8::1]:65535"];
    let tokens = addresses.map(|address| mint().mint(42, address.parse().unwrap(), NOW, 60));
    let tokens = tokens.map(Result::unwrap);
    let good = tokens.each_ref().map(JoinToken::to_bytes);
    let text = tokens[0].to_text();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..count {
        let what = format!("seed {seed}, round {round}");
        let token = if round % 8 == 0 {
            JoinToken::from_text(&hostile_text(&mut prng, &text))
        } else {
            let bytes = hostile_bytes(&mut prng, &good);
            let token = JoinToken::from_bytes(&bytes);
            if let Ok(token) = &token {
                assert_eq!(token.to_bytes(), bytes, "one token has one form: {what}");
            }
            token
        };
        let Ok(token) = token else {
            refused += 1;
            continue;
        };
        taken += 1;
        assert_harmless(&token, &what);
        if round % 32 == 1 {
            // renetcode would panic on some that we refuse.
            let connect_token = token.to_renetcode();
            let secure = ClientAuthentication::Secure { connect_token };
            let mut client = NetcodeClient::new(NOW, secure).unwrap();
            let (request, to) = client.update(Duration::from_millis(1)).unwrap();
            assert_eq!((request.len(), to), (1078, token.address()), "{what}");
        }
    }
    // Both ends of the storm are reached: what is refused, and what goes on to the protocol.
    assert!(
        taken > count / 10 && refused > count / 10,
        "{taken}, {refused}"
    );
}
