//! What an encoder or a decoder works with, and keeps from body to body.

use std::sync::Arc;

use crate::state::WireLayout;

use super::entity::Memory;
use super::model::Ages;
use super::plan::Plans;
use super::project::Projection;
use super::view::Reference;
use super::walk::Block;
use super::{AGE_MAX, REFERENCES_MAX};

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) plans: Plans,
    pub(super) ages: Ages,
    pub(super) memory: Memory,
    /// The entity that is coded.
    pub(super) now: Projection,
    /// Projections of references with hidden kinds.
    pub(super) past: [Projection; REFERENCES_MAX],
    pub(super) blocks: Vec<Block>,
}

impl Desk {
    pub(super) fn new(layout: Arc<WireLayout>) -> Self {
        Self {
            plans: Plans::new(layout),
            ages: Ages::default(),
            memory: Memory::default(),
            now: Projection::default(),
            past: Default::default(),
            blocks: Vec::new(),
        }
    }

    /// Takes the ages of a whole body's references. They must ascend within their bounds; if not,
    /// it returns false.
    pub(super) fn set_ages(&mut self, references: &[Reference<'_>]) -> bool {
        let mut ages = [0; REFERENCES_MAX];
        let mut before = 0;
        for (age, reference) in ages.iter_mut().zip(references) {
            *age = reference.age;
            if *age <= before || *age > AGE_MAX {
                return false;
            }
            before = *age;
        }
        self.ages.set(&ages[..references.len().min(REFERENCES_MAX)]);
        true
    }
}
