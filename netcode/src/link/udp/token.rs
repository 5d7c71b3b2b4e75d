//! Join tokens: what a host hands to a player, once, over a channel that he trusts.
//!
//! A [`JoinToken`] is a renetcode connect token with exactly one address. As text it is a *join
//! code* of about 1500 letters: 1024 of its bytes are sealed with the host's key, so they cannot be
//! compressed, and the client must send all of them. What can be left out (version, 31 empty
//! addresses, padding of the public half) is left out.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::path;

use renetcode::ConnectToken;

use super::guard::{TAG_BYTES, TokenTag};
use crate::hash;
use crate::wire::bytes::{DecodeError, Reader, put_varint};

/// Longest idle time of a session, in seconds, that a token may ask for.
const TOKEN_TIMEOUT_S_MAX: i32 = 60;

/// Longest life of a token: 30 days.
pub const TOKEN_LIFE_S_MAX: u64 = 30 * 24 * 3600;

/// Letters of the longest join code that is read, white space included.
pub const JOIN_CODE_BYTES_MAX: usize = 4096;

/// Bytes of the user data of a token.
pub(super) const USER_DATA_BYTES: usize = 256;

/// The address within the sealed half of a token. renetcode compares it with the server's list;
/// ours has this one entry, because the key alone says which server a token is for, and so the
/// same token works behind any address translation.
pub(super) const SEALED_ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0);

/// The version text of every connect token.
const VERSION: &[u8; 13] = b"NETCODE 1.02\0";

/// First letters of a join code; the number is the version of the layout.
const CODE_PREFIX: &str = "phalanx1.";

/// Bytes of the sealed half of a token.
const SEALED_BYTES: usize = 1024;

/// Why a token cannot be read, made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The text is not a join code.
    #[error("this is no join code: it must begin with \"{CODE_PREFIX}\"")]
    NotACode,
    /// A letter is missing or wrong.
    #[error("the join code is damaged or incomplete; copy it again")]
    Damaged,
    /// The parts of the token contradict each other or break a limit.
    #[error("the join code is invalid: {0}")]
    Invalid(&'static str),
    /// The token's time is over.
    #[error("the join code has expired; ask the host for a new one")]
    Expired,
    /// The file cannot be read or written.
    #[error("the token file cannot be used: {0}")]
    File(#[from] io::Error),
    /// The cipher failed.
    #[error("the join code cannot be made: {0}")]
    Mint(String),
    /// The client id is one of those that only members have which were invited or come back.
    #[error("client ids that begin with 0x6d62 or 0x6d64 are for members")]
    ReservedId,
    /// The bytes are no public key.
    #[error("the invitation cannot be sealed: this is no public key")]
    PublicKey,
    /// Too many invitations were asked for in the last second.
    #[error("too many invitations at once")]
    TooMany,
    /// This link takes no clients.
    #[error("this link takes no clients, so nobody can be invited to it")]
    NoClients,
    /// This link runs without encryption.
    #[error("this link is insecure: it has no join codes, connect to its address")]
    Insecure,
}

impl From<DecodeError> for TokenError {
    fn from(_: DecodeError) -> Self {
        Self::Damaged
    }
}

/// The right to connect once, to one address, as one client.
///
/// Keep it secret: it holds the keys of the session.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    inner: Box<ConnectToken>,
    address: SocketAddr,
}

impl JoinToken {
    /// Where it connects to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same right at another address of the same host, for example in the local network.
    #[must_use]
    pub fn with_address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self.inner.server_addresses[0] = Some(address);
        self
    }

    /// As whom it connects.
    #[must_use]
    pub fn client_id(&self) -> u64 {
        self.inner.client_id
    }

    /// Unix time in seconds from which on it is refused.
    #[must_use]
    pub fn expires_unix_s(&self) -> u64 {
        self.inner.expire_timestamp
    }

    /// The join code.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(CODE_PREFIX);
        encode_base64(&self.to_bytes(), &mut text);
        text
    }

    /// Reads a join code; white space in it is ignored.
    ///
    /// # Errors
    /// If it is none, is damaged, or breaks a rule.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        if text.len() > JOIN_CODE_BYTES_MAX {
            return Err(TokenError::Damaged);
        }
        let letters: String = text.split_whitespace().collect();
        let code = letters
            .strip_prefix(CODE_PREFIX)
            .ok_or(TokenError::NotACode)?;
        Self::from_bytes(&decode_base64(code).ok_or(TokenError::Damaged)?)
    }

    /// Writes the join code into a new file, which only this user may read where the system knows
    /// such rights.
    ///
    /// # Errors
    /// If the file exists or cannot be written.
    pub fn write_file(&self, path: &path::Path) -> Result<(), TokenError> {
        use io::Write as _;
        let mut text = self.to_text();
        text.push('\n');
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(options.open(path)?.write_all(text.as_bytes())?)
    }

    /// Reads a join code from a file.
    ///
    /// # Errors
    /// As [`JoinToken::from_text`], or if the file cannot be read.
    pub fn read_file(path: &path::Path) -> Result<Self, TokenError> {
        use io::Read as _;
        let mut text = String::new();
        let limit = JOIN_CODE_BYTES_MAX as u64 + 1;
        std::fs::File::open(path)?
            .take(limit)
            .read_to_string(&mut text)?;
        Self::from_text(&text)
    }

    /// The token's bytes, shortest form, with a checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let token = &*self.inner;
        let mut out = Vec::with_capacity(1180);
        match self.address.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&self.address.port().to_le_bytes());
        put_varint(&mut out, token.client_id);
        out.extend_from_slice(&token.protocol_id.to_le_bytes());
        put_varint(&mut out, token.create_timestamp);
        put_varint(
            &mut out,
            token
                .expire_timestamp
                .saturating_sub(token.create_timestamp),
        );
        put_varint(&mut out, u64::from(token.timeout_seconds.unsigned_abs()));
        out.extend_from_slice(&token.xnonce);
        out.extend_from_slice(&token.client_to_server_key);
        out.extend_from_slice(&token.server_to_client_key);
        out.extend_from_slice(&token.private_data);
        let checksum = hash::digest(&out).to_le_bytes();
        out.extend_from_slice(&checksum[..4]);
        out
    }

    /// Reads [`JoinToken::to_bytes`].
    ///
    /// # Errors
    /// If the bytes are damaged or break a rule.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenError> {
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if hash::digest(content).to_le_bytes()[..4] != *checksum {
            return Err(TokenError::Damaged);
        }
        let mut reader = Reader::new(content);
        let ip: IpAddr = match reader.u8()? {
            4 => reader.array::<4>()?.into(),
            6 => reader.array::<16>()?.into(),
            _ => return Err(TokenError::Invalid("its address is of an unknown kind")),
        };
        let address = SocketAddr::new(ip, reader.u16()?);
        let client_id = reader.varint()?;
        let protocol_id = reader.u64()?;
        let create_timestamp = reader.varint()?;
        let life = reader.varint()?;
        let timeout_seconds = i32::try_from(reader.varint()?)
            .map_err(|_beyond| TokenError::Invalid("its timeout is out of range"))?;
        let mut server_addresses = [None; 32];
        server_addresses[0] = Some(address);
        let inner = ConnectToken {
            client_id,
            version_info: *VERSION,
            protocol_id,
            create_timestamp,
            expire_timestamp: create_timestamp
                .checked_add(life)
                .ok_or(TokenError::Invalid("it never expires"))?,
            xnonce: reader.array()?,
            client_to_server_key: reader.array()?,
            server_to_client_key: reader.array()?,
            private_data: reader.array::<SEALED_BYTES>()?,
            server_addresses,
            timeout_seconds,
        };
        reader.finish()?;
        Self::checked(inner)
    }

    /// The token in the form of renetcode's own `ConnectToken::write`, for programs that
    /// speak renetcode themselves, such as load generators.
    ///
    /// # Panics
    /// Never: writing into memory does not fail.
    #[must_use]
    pub fn to_connect_token_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2048);
        self.inner
            .write(&mut out)
            .expect("a Vec takes every byte that is written to it");
        out
    }

    /// A token that renetcode can be trusted with.
    fn checked(inner: ConnectToken) -> Result<Self, TokenError> {
        let [Some(address), others @ ..] = &inner.server_addresses else {
            return Err(TokenError::Invalid("it has no address"));
        };
        let address = *address;
        if others.iter().any(Option::is_some) {
            return Err(TokenError::Invalid("it has more than one address"));
        }
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(TokenError::Invalid("nobody can be at its address"));
        }
        if inner.version_info != *VERSION {
            return Err(TokenError::Invalid("it is of another version"));
        }
        let life = inner
            .expire_timestamp
            .checked_sub(inner.create_timestamp)
            .ok_or(TokenError::Invalid("it expires before it begins"))?;
        if life == 0 || life > TOKEN_LIFE_S_MAX {
            return Err(TokenError::Invalid("its life is out of range"));
        }
        if !(1..=TOKEN_TIMEOUT_S_MAX).contains(&inner.timeout_seconds) {
            return Err(TokenError::Invalid("its timeout is out of range"));
        }
        Ok(Self {
            inner: Box::new(inner),
            address,
        })
    }

    pub(super) fn protocol_id(&self) -> u64 {
        self.inner.protocol_id
    }

    pub(super) fn tag(&self) -> TokenTag {
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&self.inner.private_data[SEALED_BYTES - TAG_BYTES..]);
        tag
    }

    pub(super) fn to_renetcode(&self) -> ConnectToken {
        (*self.inner).clone()
    }
}

impl fmt::Debug for JoinToken {
    /// Leaves the keys out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("address", &self.address)
            .field("client_id", &self.client_id())
            .field("expires_unix_s", &self.expires_unix_s())
            .finish_non_exhaustive()
    }
}

/// Makes the tokens of one server side. Its key never leaves the process and dies with it, so a
/// token of an earlier run is worth nothing.
pub(super) struct TokenMint {
    key: [u8; 32],
    protocol_id: u64,
    timeout_s: i32,
}

impl TokenMint {
    pub(super) fn new(key: [u8; 32], protocol_id: u64, timeout_s: u32) -> Self {
        let timeout_s = i32::try_from(timeout_s).unwrap_or(TOKEN_TIMEOUT_S_MAX);
        Self {
            key,
            protocol_id,
            timeout_s: timeout_s.clamp(1, TOKEN_TIMEOUT_S_MAX),
        }
    }

    pub(super) const fn key(&self) -> [u8; 32] {
        self.key
    }

    pub(super) const fn protocol_id(&self) -> u64 {
        self.protocol_id
    }

    /// A token for `client_id` at `address`, valid for `life_s` seconds from `unix_now` on.
    pub(super) fn mint(
        &self,
        client_id: u64,
        address: SocketAddr,
        unix_now: Duration,
        life_s: u64,
    ) -> Result<JoinToken, TokenError> {
        let mut token = ConnectToken::generate(
            unix_now,
            self.protocol_id,
            life_s.min(TOKEN_LIFE_S_MAX),
            client_id,
            self.timeout_s,
            vec![SEALED_ADDRESS],
            Some(&user_data(client_id)),
            &self.key,
        )
        .map_err(|error| TokenError::Mint(error.to_string()))?;
        token.server_addresses[0] = Some(address);
        JoinToken::checked(token)
    }
}

impl fmt::Debug for TokenMint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMint").finish_non_exhaustive()
    }
}

/// Binds the client's id into the user data, which travels sealed through the challenge too.
pub(super) fn user_data(client_id: u64) -> [u8; USER_DATA_BYTES] {
    let mut data = [0; USER_DATA_BYTES];
    data[..8].copy_from_slice(&client_id.to_le_bytes());
    data
}

/// The alphabet of RFC 4648, section 5: safe in addresses and file names.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode_base64(bytes: &[u8], out: &mut String) {
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_usize, |word, &byte| (word << 8) | usize::from(byte))
            << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            let index = (word >> (18 - 6 * position)) & 63;
            out.push(char::from(ALPHABET[index]));
        }
    }
}

/// `None` for foreign letters, impossible lengths and set bits beyond the end.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    for chunk in text.as_bytes().chunks(4) {
        let mut word = 0_u32;
        for &letter in chunk {
            let digit = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            word = (word << 6) | u32::from(digit);
        }
        let count = match chunk.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        word <<= 6 * (4 - chunk.len());
        let bytes = word.to_be_bytes();
        if bytes[1 + count..].iter().any(|&rest| rest != 0) {
            return None;
        }
        out.extend_from_slice(&bytes[1..=count]);
    }
    Some(out)
}

#[cfg(test)]
mod tests;
