//! Invitations: join tokens between the members of a session, carried by a host that cannot read
//! them.
//!
//! Every link has a key pair of its own, whose private half never leaves it. A member that wants
//! others to reach it mints a token for each of them, once, and seals it to that member's public
//! key; whoever carries it learns nothing that would open a session. The seal is libsodium's sealed
//! box: X25519 with a key that is thrown away, XSalsa20-Poly1305, and a nonce from both public keys.
//!
//! A sealed box does not say who made it, and public keys come over the host that introduces
//! members. So a host could stand between two members from the beginning, but one that takes part
//! only later, or only listens, cannot.

use core::fmt;
use std::collections::VecDeque;

use crypto_box::aead::OsRng;
use crypto_box::{PublicKey, SecretKey};

use super::endpoint::RateLimit;
use super::token::{JoinToken, TokenError};
use crate::id::MemberId;
use crate::limits::INVITATION_BYTES_MAX;
use crate::time::Time;

/// Bytes of a public key.
pub(super) const PUBLIC_KEY_BYTES: usize = 32;

/// First byte of what is sealed: the version of its layout.
const FORM: u8 = 1;

/// Invitations made per second. Each costs 0.1 ms of curves and ciphers, and who asks is far away.
const INVITATIONS_PER_S_MAX: u64 = 64;

/// The upper 16 bits of the client ids of invited members. A serial number follows, so that the
/// sessions of one member are told apart: the second may begin before the first has timed out.
const MARK: u64 = 0x6d62;

/// Invitations of which the link remembers for whom they are, the newest. More than members use while
/// one lives.
const REMEMBERED_MAX: usize = 2048;

/// Whether a client id can only be that of an invited member.
pub(super) const fn is_reserved(client_id: u64) -> bool {
    client_id >> 48 == MARK
}

/// What a secure link needs to invite and be invited.
pub(super) struct Invitations {
    private_key: SecretKey,
    /// The serial number of the next client id, in 48 bits.
    serial_next: u64,
    /// For whom the newest ones are, up to the one before `serial_next`.
    invited: VecDeque<MemberId>,
    made: RateLimit,
    /// Invitations that were of no use here.
    refused: u64,
}

impl Invitations {
    /// With this private key, which must be random.
    pub(super) fn new(private_key: [u8; 32]) -> Self {
        Self {
            private_key: SecretKey::from(private_key),
            serial_next: 0,
            invited: VecDeque::new(),
            made: RateLimit::new(INVITATIONS_PER_S_MAX),
            refused: 0,
        }
    }

    pub(super) fn public_key(&self) -> [u8; PUBLIC_KEY_BYTES] {
        *self.private_key.public_key().as_bytes()
    }

    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// The client id for the next session of `member`.
    pub(super) fn client_id(&mut self, now: Time, member: MemberId) -> Result<u64, TokenError> {
        if !self.made.allow(now) {
            return Err(TokenError::TooMany);
        }
        let serial = self.serial_next;
        // At the rate that is allowed these last for 139 000 years.
        self.serial_next += 1;
        if self.invited.len() >= REMEMBERED_MAX {
            self.invited.pop_front();
        }
        self.invited.push_back(member);
        Ok(MARK << 48 | serial)
    }

    /// See `UdpLink::invited_member`.
    pub(super) fn invited_member(&self, client_id: u64) -> Option<MemberId> {
        if !is_reserved(client_id) {
            return None;
        }
        let serial = client_id & ((1 << 48) - 1);
        let back = usize::try_from(self.serial_next.checked_sub(serial)?).ok()?;
        let index = self.invited.len().checked_sub(back)?;
        self.invited.get(index).copied()
    }

    /// The token in an invitation, if it is one and for this link.
    pub(super) fn unseal(&mut self, sealed: &[u8]) -> Option<JoinToken> {
        let token = self.read(sealed);
        self.refused += u64::from(token.is_none());
        token
    }

    /// Counts an invitation whose token turned out to be worth nothing.
    pub(super) const fn count_refused(&mut self) {
        self.refused += 1;
    }

    fn read(&self, sealed: &[u8]) -> Option<JoinToken> {
        if sealed.len() > INVITATION_BYTES_MAX {
            return None;
        }
        let content = self.private_key.unseal(sealed).ok()?;
        let (&FORM, token) = content.split_first()? else {
            return None;
        };
        let token = JoinToken::from_bytes(token).ok()?;
        is_reserved(token.client_id()).then_some(token)
    }
}

impl fmt::Debug for Invitations {
    /// Leaves the private key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitations")
            .field("serial_next", &self.serial_next)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

/// Seals a token to the owner of `public_key`.
pub(super) fn seal(token: &JoinToken, public_key: &[u8]) -> Result<Vec<u8>, TokenError> {
    let public_key: [u8; PUBLIC_KEY_BYTES] = public_key
        .try_into()
        .map_err(|_length| TokenError::PublicKey)?;
    if public_key == [0; PUBLIC_KEY_BYTES] {
        return Err(TokenError::PublicKey);
    }
    let mut content = vec![FORM];
    content.extend_from_slice(&token.to_bytes());
    PublicKey::from(public_key)
        .seal(&mut OsRng, &content)
        .map_err(|error| TokenError::Mint(error.to_string()))
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;
    use core::time::Duration;

    use super::super::token::TokenMint;
    use super::*;

    fn token(client_id: u64) -> JoinToken {
        let address = SocketAddr::from(([192, 0, 2, 1], 5000));
        let mint = TokenMint::new([3; 32], 7, 10);
        mint.mint(client_id, address, Duration::from_secs(1_000_000), 60)
            .unwrap()
    }

    #[test]
    fn only_the_owner_of_the_key_can_read_an_invitation() {
        let mut ours = Invitations::new([1; 32]);
        let mut others = Invitations::new([2; 32]);
        let client_id = ours.client_id(Time::ZERO, MemberId(9)).unwrap();
        let token = token(client_id);
        let sealed = seal(&token, &ours.public_key()).unwrap();
        assert!(sealed.len() <= 1280, "{}", sealed.len());
        assert_eq!(ours.unseal(&sealed).unwrap().to_bytes(), token.to_bytes());
        assert_eq!(ours.refused(), 0);
        assert!(others.unseal(&sealed).is_none());
        assert_eq!(others.refused(), 1);
        // Nothing of the token shows, and each seal is another one.
        let shows = |part: &[u8]| sealed.windows(part.len()).any(|window| window == part);
        assert!(!shows(&token.to_bytes()[40..72]));
        assert_ne!(seal(&token, &ours.public_key()).unwrap(), sealed);
    }

    #[test]
    fn damaged_invitations_and_other_contents_are_refused() {
        let mut ours = Invitations::new([1; 32]);
        let public_key = ours.public_key();
        let client_id = ours.client_id(Time::ZERO, MemberId(9)).unwrap();
        let sealed = seal(&token(client_id), &public_key).unwrap();
        let mut refused = 0;
        let mut expect = |bytes: &[u8]| {
            assert!(ours.unseal(bytes).is_none(), "{} bytes", bytes.len());
            refused += 1;
            assert_eq!(ours.refused(), refused);
        };
        for len in 0..sealed.len() {
            expect(&sealed[..len]);
        }
        for position in (0..sealed.len()).step_by(7) {
            let mut mutated = sealed.clone();
            mutated[position] ^= 1 << (position % 8);
            expect(&mutated);
        }
        let mut longer = sealed.clone();
        longer.push(0);
        expect(&longer);
        longer.resize(INVITATION_BYTES_MAX + 1, 0);
        expect(&longer);
        // Well sealed, but no token, of another form, or not for a member.
        let mut box_of = |content: &[u8]| {
            let to = PublicKey::from(public_key);
            expect(&to.seal(&mut OsRng, content).unwrap());
        };
        box_of(&[]);
        box_of(&[FORM, 1, 2, 3]);
        let bytes = token(client_id).to_bytes();
        box_of(&bytes);
        box_of(&[&[FORM + 1], &bytes[..]].concat());
        box_of(&[&[FORM], &token(9).to_bytes()[..]].concat());
    }

    #[test]
    fn client_ids_name_members_and_their_sessions() {
        let mut ours = Invitations::new([1; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for member in [0, 1, 255, 256, u64::MAX] {
            for _ in 0..3 {
                let id = ours.client_id(Time::ZERO, MemberId(member)).unwrap();
                assert_eq!(ours.invited_member(id), Some(MemberId(member)));
                assert!(seen.insert(id));
            }
        }
        let newest = seen.last().copied().unwrap();
        for id in [
            0,
            1,
            u64::MAX,
            0x6d61 << 48,
            0x6d62 << 40,
            newest + 1,
            newest + 2,
        ] {
            assert_eq!(ours.invited_member(id), None);
        }
        let first = seen.first().copied().unwrap();
        assert_eq!(ours.invited_member(first), Some(MemberId(0)));
        let granted = (0..1000)
            .filter(|_| ours.client_id(Time::ZERO, MemberId(1)).is_ok())
            .count();
        assert_eq!(granted, 64 - 15);
    }

    #[test]
    fn what_is_no_key_gets_no_invitation() {
        let token = token(1);
        for key in [&[][..], &[1; 31], &[1; 33], &[0; 32]] {
            assert!(matches!(seal(&token, key), Err(TokenError::PublicKey)));
        }
    }
}
