#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: a conditioned link delays real datagrams by the real clock"
)]
//! A bad network around any link of a running game.
//!
//! Each path gets a [`Conditioner`] per direction, with streams of one seed. Datagrams are
//! conditioned; a path's opening and closing are not. What is under way when a path closes arrives
//! at once, before the closing, so that a goodbye is not lost. Conditioned datagrams move when [`Link::receive`] or [`Link::flush`] is called, so call
//! one of them at least every millisecond or two where the delay must be exact.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Instant;

use super::conditioner::{Conditioner, ConditionerStatistics, Conditions};
use super::{Address, CloseReason, Link, LinkEvent, Opening};
use crate::id::{MemberId, Path};
use crate::time::Time;

/// A [`Link`] whose datagrams pass through [`Conditioner`]s.
#[derive(Debug)]
pub struct ConditionedLink<L> {
    inner: L,
    clock: Clock,
    outgoing: Conditions,
    incoming: Conditions,
    seed: u64,
    routes: BTreeMap<Path, Route>,
    /// Openings and closings that wait for their turn.
    news: VecDeque<News>,
    /// The datagram that the last `receive` lent out.
    lent: Vec<u8>,
}

impl<L: Link> ConditionedLink<L> {
    /// Wraps `inner`: what it sends meets `outgoing`, what it receives meets `incoming`. If both
    /// ends of a route are wrapped, give each end's `outgoing` one direction and leave `incoming`
    /// [`Conditions::PERFECT`].
    pub fn new(inner: L, outgoing: Conditions, incoming: Conditions, seed: u64) -> Self {
        let start = Instant::now();
        let elapsed = move || Time::ZERO + start.elapsed();
        Self::with_clock(inner, outgoing, incoming, seed, Box::new(elapsed))
    }

    /// As [`ConditionedLink::new`], with a clock of the caller's, which must not go back.
    pub fn with_clock(
        inner: L,
        outgoing: Conditions,
        incoming: Conditions,
        seed: u64,
        clock: Box<dyn Fn() -> Time + Send>,
    ) -> Self {
        Self {
            inner,
            clock: Clock(clock),
            outgoing,
            incoming,
            seed,
            routes: BTreeMap::new(),
            news: VecDeque::new(),
            lent: Vec::new(),
        }
    }

    /// The wrapped link.
    pub const fn inner(&self) -> &L {
        &self.inner
    }

    /// The wrapped link, for example to connect it.
    pub const fn inner_mut(&mut self) -> &mut L {
        &mut self.inner
    }

    /// The wrapped link; datagrams under way are lost.
    pub fn into_inner(self) -> L {
        self.inner
    }

    /// Changes the conditions of all paths, from now on.
    pub fn set_conditions(&mut self, outgoing: Conditions, incoming: Conditions) {
        (self.outgoing, self.incoming) = (outgoing, incoming);
        for route in self.routes.values_mut() {
            route.outgoing.set_conditions(outgoing);
            route.incoming.set_conditions(incoming);
        }
    }

    /// What has happened on `path`, outgoing and incoming.
    #[must_use]
    pub fn statistics(&self, path: Path) -> Option<(ConditionerStatistics, ConditionerStatistics)> {
        let route = self.routes.get(&path)?;
        Some((route.outgoing.statistics(), route.incoming.statistics()))
    }

    fn route(&mut self, path: Path) -> &mut Route {
        let (outgoing, incoming) = (self.outgoing, self.incoming);
        let stream = self.seed ^ u64::from(path.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.routes.entry(path).or_insert_with(|| Route {
            outgoing: Conditioner::new(outgoing, stream),
            incoming: Conditioner::new(incoming, !stream),
            closed: None,
        })
    }

    /// Moves what has left the outgoing conditioners to the inner link.
    fn pump_out(&mut self, now: Time) {
        for (&path, route) in &mut self.routes {
            while let Some(((), bytes)) = route.outgoing.pop(now) {
                self.inner.send(path, bytes);
            }
        }
        self.inner.flush();
    }

    /// Moves what the inner link has received into the incoming conditioners.
    fn pump_in(&mut self, now: Time) {
        loop {
            // The route is looked up inline: the event borrows the inner link.
            match self.inner.receive() {
                None => return,
                Some(LinkEvent::Datagram { path, bytes }) => {
                    if let Some(route) = self.routes.get_mut(&path) {
                        route.incoming.push(now, (), bytes);
                    }
                }
                Some(LinkEvent::Opened { path, client_id }) => {
                    self.route(path);
                    self.news.push_back(News::Opened { path, client_id });
                }
                Some(LinkEvent::Closed { path, reason }) => match self.routes.get_mut(&path) {
                    Some(route) => route.closed = Some(reason),
                    None => self.news.push_back(News::Closed { path, reason }),
                },
            }
        }
    }
}

impl<L: Link> Link for ConditionedLink<L> {
    fn receive(&mut self) -> Option<LinkEvent<'_>> {
        let now = (self.clock.0)();
        self.pump_out(now);
        self.pump_in(now);
        if let Some(news) = self.news.pop_front() {
            return Some(match news {
                News::Opened { path, client_id } => LinkEvent::Opened { path, client_id },
                News::Closed { path, reason } => LinkEvent::Closed { path, reason },
            });
        }
        let mut closed = None;
        for (&path, route) in &mut self.routes {
            let until = if route.closed.is_some() {
                Time::FAR
            } else {
                now
            };
            if let Some(((), bytes)) = route.incoming.pop(until) {
                self.lent.clear();
                self.lent.extend_from_slice(bytes);
                let bytes = &self.lent;
                return Some(LinkEvent::Datagram { path, bytes });
            }
            if let Some(reason) = route.closed {
                closed = Some((path, reason));
                break;
            }
        }
        let (path, reason) = closed?;
        self.routes.remove(&path);
        Some(LinkEvent::Closed { path, reason })
    }

    fn send(&mut self, path: Path, bytes: &[u8]) {
        let now = (self.clock.0)();
        if let Some(route) = self.routes.get_mut(&path) {
            route.outgoing.push(now, (), bytes);
        } else {
            // An unknown path is the inner link's to count.
            self.inner.send(path, bytes);
        }
    }

    fn flush(&mut self) {
        let now = (self.clock.0)();
        self.pump_out(now);
    }

    fn close(&mut self, path: Path) {
        if let Some(mut route) = self.routes.remove(&path) {
            while let Some(((), bytes)) = route.outgoing.pop(Time::FAR) {
                self.inner.send(path, bytes);
            }
            self.inner.flush();
        }
        self.inner.close(path);
    }

    fn address(&self, path: Path) -> Option<Address> {
        self.inner.address(path)
    }

    fn open(&mut self, opening: &Opening) -> Option<Path> {
        self.inner.open(opening)
    }

    fn reopen(&mut self, old: Path) -> Option<Path> {
        self.inner.reopen(old)
    }

    fn public_key(&self) -> Option<[u8; 32]> {
        self.inner.public_key()
    }

    fn invite(&mut self, member: MemberId, public_key: &[u8]) -> Option<Vec<u8>> {
        self.inner.invite(member, public_key)
    }
}

/// Both directions of one path.
#[derive(Debug)]
struct Route {
    outgoing: Conditioner<()>,
    incoming: Conditioner<()>,
    /// The other end is gone; it is said once all that arrived before has been handed out.
    closed: Option<CloseReason>,
}

#[derive(Debug)]
enum News {
    Opened { path: Path, client_id: u64 },
    Closed { path: Path, reason: CloseReason },
}

struct Clock(Box<dyn Fn() -> Time + Send>);

impl core::fmt::Debug for Clock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::link::memory::{self, MemoryLink};

    type Hand = Arc<AtomicU64>;

    fn conditioned(
        link: MemoryLink,
        outgoing: Conditions,
        incoming: Conditions,
        hand: &Hand,
    ) -> ConditionedLink<MemoryLink> {
        let hand = Arc::clone(hand);
        let clock = Box::new(move || Time::from_micros(hand.load(Ordering::Relaxed)));
        ConditionedLink::with_clock(link, outgoing, incoming, 1, clock)
    }

    fn opened(link: &mut impl Link) -> Path {
        match link.receive() {
            Some(LinkEvent::Opened { path, .. }) => path,
            other => panic!("expected an opened path, not {other:?}"),
        }
    }

    #[test]
    fn both_directions_take_their_time() {
        let hand = Hand::default();
        let (a, mut b) = memory::pair();
        let mut a = conditioned(
            a,
            Conditions::from_rtt(20_000, 0),
            Conditions::from_rtt(40_000, 0),
            &hand,
        );
        let (to_b, to_a) = (opened(&mut a), opened(&mut b));
        a.send(to_b, b"there");
        b.send(to_a, b"back");
        assert_eq!(a.receive(), None);
        assert_eq!(b.receive(), None);

        hand.store(10_000, Ordering::Relaxed);
        a.flush();
        let bytes: &[u8] = b"there";
        assert_eq!(b.receive(), Some(LinkEvent::Datagram { path: to_a, bytes }));
        assert_eq!(a.receive(), None);

        hand.store(20_000, Ordering::Relaxed);
        let bytes: &[u8] = b"back";
        assert_eq!(a.receive(), Some(LinkEvent::Datagram { path: to_b, bytes }));
    }

    #[test]
    fn what_was_sent_before_a_close_arrives_before_it() {
        let hand = Hand::default();
        for slow in [Conditions::PERFECT, Conditions::from_rtt(40_000, 0)] {
            // The end that closes is conditioned, then the end that is told.
            let (a, mut b) = memory::pair();
            let mut a = conditioned(a, slow, Conditions::PERFECT, &hand);
            let (to_b, to_a) = (opened(&mut a), opened(&mut b));
            let (bytes, reason): (&[u8], _) = (b"bye", CloseReason::Remote);
            a.send(to_b, bytes);
            a.close(to_b);
            assert_eq!(b.receive(), Some(LinkEvent::Datagram { path: to_a, bytes }));
            assert_eq!(b.receive(), Some(LinkEvent::Closed { path: to_a, reason }));

            let (a, mut b) = memory::pair();
            let mut a = conditioned(a, Conditions::PERFECT, slow, &hand);
            let (to_b, to_a) = (opened(&mut a), opened(&mut b));
            b.send(to_a, bytes);
            b.close(to_a);
            assert_eq!(a.receive(), Some(LinkEvent::Datagram { path: to_b, bytes }));
            assert_eq!(a.receive(), Some(LinkEvent::Closed { path: to_b, reason }));
            assert_eq!(a.statistics(to_b), None);
        }
    }

    #[test]
    fn loss_is_applied_and_closing_passes() {
        let hand = Hand::default();
        let (a, mut b) = memory::pair();
        let mut a = conditioned(
            a,
            Conditions::from_rtt(0, 500_000),
            Conditions::PERFECT,
            &hand,
        );
        let (to_b, to_a) = (opened(&mut a), opened(&mut b));
        for _ in 0..1000 {
            a.send(to_b, &[1]);
        }
        a.flush();
        let mut received = 0;
        while b.receive().is_some() {
            received += 1;
        }
        assert!((400..600).contains(&received), "{received} of 1000");
        let (out, _) = a.statistics(to_b).unwrap();
        assert_eq!(out.lost + received, 1000);

        b.close(to_a);
        let reason = CloseReason::Remote;
        assert_eq!(a.receive(), Some(LinkEvent::Closed { path: to_b, reason }));
        assert_eq!(a.statistics(to_b), None);
    }
}
