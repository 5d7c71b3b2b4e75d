//! Components and a resource of the games that these tests play.

use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Debug, PartialEq)]
pub(crate) struct Path(pub(crate) Vec<NetId>);

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
#[component(storage = "SparseSet")]
pub(crate) struct Burning {
    pub(crate) ticks: u16,
}

#[derive(Component, Networked, Clone, Copy, Debug, Default, PartialEq)]
#[require(Shield)]
pub(crate) struct Armour(pub(crate) u8);

#[derive(Component, Networked, Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shield(pub(crate) u8);

/// No bytes at all.
#[derive(Component, Networked, Clone, Copy, Debug)]
pub(crate) struct Frozen;

#[derive(Resource, Networked, Clone, Debug, Default, PartialEq)]
pub(crate) struct Score {
    pub(crate) names: Vec<String>,
}
