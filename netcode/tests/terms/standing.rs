//! How the nodes of a world stand: whether all are in step, and texts for people.

use phalanx_netcode::migration::{Authority, TermMessage};

use crate::world::World;

impl World {
    /// Whether one host acts, and all members that are up follow it and hold what it had when it
    /// was last looked at.
    pub(crate) fn is_in_step(&self) -> bool {
        let Some(host) = self.host() else {
            return false;
        };
        let host = &self.nodes[usize::try_from(host).unwrap()];
        let term = host.terms.term();
        let up = self.nodes.iter().filter(|node| node.alive && !node.forked);
        up.clone().all(|node| {
            let near = node.toy.newest().number() + 60 >= host.toy.newest().number();
            let follows = node.terms.term() == term && node.terms.fence() == term;
            follows && !node.terms.suspects() && node.terms.is_member() && near
        })
    }

    /// Where each node stands.
    pub(crate) fn summary(&self) -> String {
        let nodes = self.nodes.iter().filter(|node| node.alive);
        let each = nodes.map(|node| {
            let terms = &node.terms;
            format!(
                "\n  {} of term {} (fence {}), host {:?}, newest {}, member {}, suspects {}, acts {}",
                node.id,
                terms.term().0,
                terms.fence().0,
                terms.host().map(|id| id.0),
                node.toy.newest(),
                terms.is_member(),
                terms.suspects(),
                node.may_act(self.now),
            )
        });
        each.collect()
    }

    /// Whether those who are up can elect by the newest roster that one of them has.
    pub(crate) fn has_quorum(&self) -> bool {
        let up = || self.nodes.iter().filter(|node| node.alive && !node.forked);
        let newest = up()
            .map(|node| node.terms.roster())
            .max_by_key(|roster| roster.number());
        newest.is_some_and(|roster| {
            let here = roster.members.iter().filter(|member| {
                let mut same = up().filter(|node| node.id == member.id.0);
                member.is_voter && same.any(|node| node.incarnation == member.incarnation)
            });
            here.count() >= roster.elect()
        })
    }
}

/// What a message is about.
pub(crate) fn brief(message: &TermMessage) -> String {
    let text = match message {
        TermMessage::NewTerm { roster, .. }
        | TermMessage::RosterUpdate { roster }
        | TermMessage::Suspect { roster, .. }
        | TermMessage::VoteRequest { roster, .. } => {
            let voters: Vec<u64> = roster.voters().map(|id| id.0).collect();
            let standbys: Vec<u64> = roster.standbys.iter().map(|id| id.0).collect();
            let number = roster.number();
            format!(
                " {number:?} host {} voters {voters:?} standbys {standbys:?}",
                roster.host.0
            )
        }
        TermMessage::Heartbeat { .. }
        | TermMessage::Echo { .. }
        | TermMessage::Report { .. }
        | TermMessage::Vote { .. }
        | TermMessage::Stale { .. }
        | TermMessage::Prepare { .. }
        | TermMessage::Ready { .. }
        | TermMessage::Commit { .. }
        | TermMessage::Abort { .. }
        | TermMessage::Goodbye { .. }
        | TermMessage::Forked { .. } => format!(" {message:?}"),
    };
    let term = if let TermMessage::VoteRequest {
        term,
        kind,
        position,
        ..
    } = message
    {
        format!(" for {} {kind:?} at {}", term.0, position.tick)
    } else {
        String::new()
    };
    format!("{}{term}{text}", message.name())
}
