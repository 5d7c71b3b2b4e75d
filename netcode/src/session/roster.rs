//! Who takes part.

use crate::id::{MemberId, Slot};
use crate::session::config::Role;
use crate::wire::codec::{Decode, Encode};

/// A participant, as everyone knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity in this session.
    pub id: MemberId,
    /// What it does.
    pub role: Role,
    /// Its slot, if it plays.
    pub slot: Option<Slot>,
    /// Its name. Chosen by the member: show it, do not trust it.
    pub name: String,
    /// Whether its link is up.
    pub connected: bool,
}

/// The participants, by identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    members: Vec<Member>,
}

impl Roster {
    /// The members, by identity.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this identity.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The member that plays in `slot`.
    #[must_use]
    pub fn in_slot(&self, slot: Slot) -> Option<&Member> {
        self.members.iter().find(|member| member.slot == Some(slot))
    }

    /// Number of members with a slot.
    #[must_use]
    pub fn players(&self) -> usize {
        self.members
            .iter()
            .filter(|member| member.slot.is_some())
            .count()
    }

    /// Adds a member, or replaces what is known of it.
    pub fn set(&mut self, member: Member) {
        match self
            .members
            .binary_search_by_key(&member.id, |known| known.id)
        {
            Ok(index) => self.members[index] = member,
            Err(index) => self.members.insert(index, member),
        }
    }

    /// Removes a member.
    pub fn remove(&mut self, id: MemberId) -> Option<Member> {
        let index = self
            .members
            .binary_search_by_key(&id, |known| known.id)
            .ok()?;
        Some(self.members.remove(index))
    }

    /// The member with this identity, to change.
    pub fn member_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }
}

/// A member on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberRecord {
    /// Identity.
    pub id: u64,
    /// 0 player, 1 spectator, 2 dedicated host.
    pub role: u8,
    /// Slot, 255 for none.
    pub slot: u8,
    /// Name.
    pub name: String,
    /// Whether its link is up.
    pub connected: bool,
}

impl From<&Member> for MemberRecord {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.0,
            role: match member.role {
                Role::Player => 0,
                Role::Spectator => 1,
                Role::DedicatedHost => 2,
            },
            slot: member.slot.map_or(u8::MAX, |slot| slot.0),
            name: member.name.clone(),
            connected: member.connected,
        }
    }
}

impl MemberRecord {
    /// The member that this describes, or `None` if a number has no meaning.
    #[must_use]
    pub fn member(self, slots: u8) -> Option<Member> {
        let role = match self.role {
            0 => Role::Player,
            1 => Role::Spectator,
            2 => Role::DedicatedHost,
            _ => return None,
        };
        let slot = match self.slot {
            u8::MAX => None,
            slot if slot < slots => Some(Slot(slot)),
            _ => return None,
        };
        let id = MemberId(self.id);
        Some(Member {
            id,
            role,
            slot,
            name: self.name,
            connected: self.connected,
        })
    }
}
