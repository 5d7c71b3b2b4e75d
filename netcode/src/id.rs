//! Identities: entities, slots, members, sessions, terms and paths.

use core::fmt;

/// An entity's network identity: the same on every node, whoever hosts.
///
/// The upper 32 bits are the term in which the entity was born, the lower 32 bits a counter of
/// that term, so that an id handed out in a tick that a crash erased is never given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetId(u64);

impl NetId {
    /// The id that no entity has.
    pub const NONE: Self = Self(0);

    /// The id with number `counter` of `term`.
    #[must_use]
    pub const fn new(term: Term, counter: u32) -> Self {
        Self(((term.0 as u64) << 32) | counter as u64)
    }

    /// The id with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The id's bits, as they stand in snapshots and hashes.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The term in which the entity was born.
    #[must_use]
    pub const fn term(self) -> Term {
        Term((self.0 >> 32) as u32)
    }

    /// The number within its term.
    #[must_use]
    pub const fn counter(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// Whether this is [`NetId::NONE`].
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for NetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term().0, self.counter())
    }
}

/// Number of a hosting period. It only grows; everything with an older term is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u32);

/// A seat that produces input, `0..SLOTS_MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

impl Slot {
    /// The slot's index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The slot's bit in a mask of slots; 0 for a slot beyond 63.
    #[must_use]
    pub const fn bit(self) -> u64 {
        if self.0 < 64 { 1 << self.0 } else { 0 }
    }
}

/// A participant of a session, from its welcome to its end; never reused within a session.
///
/// The upper 32 bits are the number of terms before the one whose host let it in, the lower 32 bits a
/// counter of that host. So two hosts never give one id, even if one of them does not know yet that
/// there is another. Ids of the first term are small numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl MemberId {
    /// The member that opened the session.
    pub const FIRST_HOST: Self = Self(0);

    /// Stands for a member that is not known. Nobody has this id.
    pub const UNKNOWN: Self = Self(u64::MAX);

    /// The id with number `counter` of those that the host of `term` gives.
    #[must_use]
    pub const fn new(term: Term, counter: u32) -> Self {
        Self((term.0.saturating_sub(1) as u64) << 32 | counter as u64)
    }
}

impl fmt::Display for MemberId {
    /// As a number, behind the term and a dot if that is not the first one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counter = self.0 & 0xffff_ffff;
        match self.0 >> 32 {
            0 => write!(f, "{counter}"),
            terms_before => write!(f, "{}.{counter}", terms_before + 1),
        }
    }
}

/// The shared game, from its first handshake to its last goodbye, across hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Opaque handle to one remote route. The link that made it knows what it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(pub u32);
