//! Where too few are left to have a host, or nobody who may host: the game is told so, soon and in
//! numbers, and after as long as its policy says the node gives up.
//!
//! Nobody knows whether those who are missing are gone or cut off. Until they are heard nothing can be
//! done in the session's name, and a player who looks at a picture that stands still wants to know why.

use crate::id::MemberId;
use crate::migration::{Quorum, Terms};
use crate::node::api::{DisconnectReason, Event};
use crate::node::{Node, Role};
use crate::time::Time;

/// After so much time without a host and without a majority the game is told, in microseconds. Whoever
/// is silent counts as heard for a while, so that an election would be over by then.
const TELL_US: u64 = 500_000;
/// Time between two tellings, in microseconds.
const TELL_AGAIN_US: u64 = 1_000_000;
/// A step of time that is longer is a sleep, in which nobody could be heard.
const SLEEP_US: u64 = 1_500_000;

/// What a session lacks that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// Enough of those who elect a host.
    Majority(Quorum),
    /// This host: nobody else may be elected.
    Host(MemberId),
}

impl Lack {
    /// What the session lacks, as far as a member hears that knows of no host that acts.
    fn of(terms: &Terms, now: Time) -> Option<Self> {
        let host = terms.host().filter(|_| !terms.is_host());
        if let Some(host) = host
            && !terms.has_heir()
        {
            return Some(Self::Host(host));
        }
        let quorum = terms.quorum(now);
        (!quorum.is_there()).then_some(Self::Majority(quorum))
    }

    const fn event(self) -> Event {
        match self {
            Self::Majority(quorum) => Event::NoMajority(quorum),
            Self::Host(host) => Event::NobodyMayHost { host },
        }
    }

    const fn reason(self) -> DisconnectReason {
        match self {
            Self::Majority(quorum) => DisconnectReason::NoMajority(quorum),
            Self::Host(_) => DisconnectReason::NobodyMayHost,
        }
    }
}

/// For how long the session has lacked something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// Time in which others could have been heard.
    listened_us: u64,
    seen_at: Time,
    told: Option<(Lack, Time)>,
}

impl Watch {
    /// Takes notice of what is lacking at `now`. What the game is to be told, if it is time for that.
    fn look(&mut self, now: Time, lack: Option<Lack>) -> Option<Lack> {
        let Some(lack) = lack else {
            *self = Self {
                seen_at: now,
                ..Self::default()
            };
            return None;
        };
        let step_us = now.micros_since(self.seen_at);
        self.seen_at = now;
        if step_us <= SLEEP_US {
            self.listened_us += step_us;
        }
        if self.listened_us < TELL_US {
            return None;
        }
        let is_news = self
            .told
            .is_none_or(|(told, at)| told != lack && now.micros_since(at) >= TELL_AGAIN_US);
        if is_news {
            self.told = Some((lack, now));
        }
        is_news.then_some(lack)
    }
}

impl Node {
    /// Who is there of those who elect the session's host; `None` where members do not elect, and
    /// before this node has heard who they are.
    #[must_use]
    pub fn quorum(&self) -> Option<Quorum> {
        let hosting = self.hosting.as_ref()?;
        let is_known = hosting.terms.host().is_some();
        is_known.then(|| hosting.terms.quorum(hosting.now))
    }

    /// Tells the game why the session stands still, and gives up after long.
    pub(super) fn watch_majority(&mut self, now: Time) {
        let is_over = match &self.role {
            Role::Host(host) => host.is_over(&self.core),
            Role::Client(client) => client.has_ended(),
        };
        let is_done = self.is_done();
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        let terms = &hosting.terms;
        let matters = !is_over && !is_done && terms.is_member() && terms.stands_still(now);
        let lacking = if matters { Lack::of(terms, now) } else { None };
        let told = hosting.watch.look(now, lacking);
        let listened_us = hosting.watch.listened_us;
        if let Some(lack) = told {
            self.core.report(lack.event());
        }
        let limit_us = match &self.role {
            Role::Host(host) => host.config.hosting.give_up_after_us,
            Role::Client(client) => client.config.hosting.give_up_after_us,
        };
        if let Some(lack) = lacking
            && limit_us.is_some_and(|limit_us| listened_us >= limit_us)
        {
            let reason = lack.reason();
            match &mut self.role {
                Role::Host(_) => {
                    self.say_goodbye(now);
                    self.core.report(Event::Disconnected { reason });
                }
                Role::Client(client) => client.end(&mut self.core, reason),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn of(heard: u16) -> Lack {
        Lack::Majority(Quorum {
            voters: 5,
            heard,
            needed: 3,
        })
    }

    #[test]
    fn it_is_told_once_in_time_and_again_with_other_numbers() {
        let mut watch = Watch::default();
        let mut told = Vec::new();
        for ms in (0..6_000).step_by(50) {
            let heard = if ms < 3_000 { 2 } else { 1 };
            let lack = (ms >= 500).then_some(of(heard));
            if let Some(lack) = watch.look(Time::from_millis(ms), lack) {
                told.push((ms, lack));
            }
        }
        assert_eq!(told, [(950, of(2)), (3_000, of(1))]);
        assert!(watch.look(Time::from_millis(6_000), None).is_none());
        assert_eq!(watch.listened_us, 0);
    }

    #[test]
    fn whoever_slept_has_not_listened() {
        let mut watch = Watch::default();
        watch.look(Time::from_millis(0), Some(of(1)));
        watch.look(Time::from_millis(400), Some(of(1)));
        watch.look(Time::from_millis(60_000), Some(of(1)));
        assert_eq!(watch.listened_us, 400_000);
        let told = watch.look(Time::from_millis(60_100), Some(of(1)));
        assert_eq!(told, Some(of(1)));
    }
}
