//! Reliable messages between members and whoever hosts: each arrives once, in order, at whom it was
//! sent to. What was under way when a link ended may be lost; nothing else.

use std::collections::BTreeMap;

use crate::cluster::Index;

/// A process: a place in the cluster, and how often it was restarted.
pub(super) type Life = (Index, u32);

/// What two processes have told each other, in one direction.
#[derive(Debug, Default)]
struct Conversation {
    /// For each message sent, the links of both ends at that time, counted, and the present in
    /// microseconds.
    sent: Vec<(u64, u64)>,
    /// Number of the last message that arrived, from 1.
    heard: usize,
}

/// All conversations.
#[derive(Debug, Default)]
pub(super) struct Chat {
    conversations: BTreeMap<(Life, Life), Conversation>,
}

impl Chat {
    /// The next message from one to the other.
    pub(super) fn next(&self, from: Life, to: Life) -> Vec<u8> {
        let known = self.conversations.get(&(from, to));
        let number = known.map_or(0, |it| it.sent.len()) + 1;
        let place = |life: Life| [life.0 as u64, u64::from(life.1)];
        let words = [place(from), place(to)].concat();
        let words = words.into_iter().chain([number as u64]);
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// That message was taken, while both ends had had so many links.
    pub(super) fn sent(&mut self, from: Life, to: Life, links: u64, now_us: u64) {
        let conversation = self.conversations.entry((from, to)).or_default();
        conversation.sent.push((links, now_us));
    }

    /// A message has arrived at `to`. `links` tells how many links the ends have had by now.
    pub(super) fn hear(
        &mut self,
        to: Life,
        bytes: &[u8],
        links: impl Fn(Life, Life) -> u64,
    ) -> Result<(), String> {
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b)))
            .collect();
        let &[from_index, from_life, to_index, to_life, number] = &words[..] else {
            return Err(format!("a message of {} B", bytes.len()));
        };
        let life = |index: u64, life: u64| {
            let life = u32::try_from(life).unwrap_or(u32::MAX);
            (usize::try_from(index).unwrap_or(usize::MAX), life)
        };
        let from = life(from_index, from_life);
        if life(to_index, to_life) != to {
            return Err(format!("{to:?} hears a message from {from:?} to another"));
        }
        let Some(conversation) = self.conversations.get_mut(&(from, to)) else {
            return Err(format!("{to:?} hears {from:?}, which said nothing"));
        };
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let heard = conversation.heard;
        if number <= heard || number > conversation.sent.len() {
            return Err(format!(
                "{to:?} hears message {number} of {from:?} after {heard}"
            ));
        }
        conversation.heard = number;
        let links = links(from, to);
        let missed = &conversation.sent[heard..number - 1];
        if missed.iter().any(|&(then, _)| then == links) {
            return Err(format!(
                "{to:?} hears message {number} of {from:?} after {heard} over the same link"
            ));
        }
        Ok(())
    }

    /// A conversation of which a message sent before `before_us` over a link that still is there
    /// has not arrived.
    pub(super) fn unheard(
        &self,
        before_us: u64,
        links: impl Fn(Life, Life) -> Option<u64>,
    ) -> Option<String> {
        self.conversations.iter().find_map(|(&(from, to), it)| {
            let now = links(from, to)?;
            let is_late = |&(then, at_us): &(u64, u64)| then == now && at_us < before_us;
            let late = it.sent[it.heard..].iter().any(is_late);
            late.then(|| format!("{to:?} never hears what {from:?} says after {}", it.heard))
        })
    }

    /// How many messages have arrived.
    pub(super) fn heard(&self) -> usize {
        self.conversations.values().map(|it| it.heard).sum()
    }
}
