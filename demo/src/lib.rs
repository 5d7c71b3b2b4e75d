//! The demo game of Phalanx, and what its programs share.
//!
//! [`arena`] is the game: rules, inputs, bots. The rest plays it: [`options`] become
//! [`options::Settings`], a [`session::Session`] runs one node over UDP with a [`play::Pilot`] at
//! its controls, an [`eye::Eye`] follows what a client of a state-sync session shows, [`view`] draws
//! the field for a terminal, an [`inspector`] tells what clients are sent, [`summary`] says how it
//! went, and [`local`] plays a whole session in one process.

pub mod arena;
pub mod eye;
pub mod inspector;
pub mod local;
pub mod options;
pub mod place;
pub mod play;
pub mod replay;
pub mod session;
pub mod show;
pub mod summary;
pub mod tokens;
pub mod truth;
pub mod view;
