//! Playing replays of a game.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use phalanx_netcode::replay::{Mode, OpenError, PlayError, Player, Reader};

use crate::{EcsSimulation, Game, SessionSetup, Side};

/// Plays a replay: steps, seeks, verifies. See [`Player`].
pub type Playback<R = BufReader<File>> = Player<EcsSimulation, R>;

/// Why a replay cannot be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaybackError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is of another game.
    #[error("this replay is of the game \"{found}\", not of \"{expected}\"")]
    OtherGame {
        /// The replay's game.
        found: String,
        /// This game.
        expected: String,
    },
    /// It cannot be played, for example because its components differ.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// This file cannot be played.
    #[error("cannot play {}: {error}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        error: Box<PlaybackError>,
    },
}

impl Game {
    /// Opens a replay file of this game.
    ///
    /// # Errors
    /// [`PlaybackError::File`] if it cannot be read, or is of another game or of other components.
    pub fn playback(&self, file: impl AsRef<Path>) -> Result<Playback, PlaybackError> {
        let path = file.as_ref();
        let opened = File::open(path).map_err(|error| OpenError::from(error).into());
        opened
            .and_then(|file| self.playback_from(BufReader::new(file)))
            .map_err(|error: PlaybackError| PlaybackError::File {
                file: path.to_owned(),
                error: Box::new(error),
            })
    }

    /// Opens a replay of this game from any source.
    ///
    /// # Errors
    /// If it cannot be read, or is of another game or of other components.
    pub fn playback_from<R: Read + Seek>(&self, source: R) -> Result<Playback<R>, PlaybackError> {
        let reader = Reader::open(source)?;
        let header = reader.header();
        if header.game != self.id() {
            return Err(PlaybackError::OtherGame {
                found: header.game.clone(),
                expected: self.id().to_owned(),
            });
        }
        let simulation = match header.mode {
            Mode::Lockstep => self.simulation(header.seed, header.slots()),
            // It holds what clients knew.
            Mode::StateSync => {
                let mut simulation = self.simulation_of(SessionSetup {
                    seed: header.seed,
                    public_seed: header.seed,
                    slots: header.slots(),
                });
                simulation.set_side(Side::Spectating);
                simulation
            }
        };
        Ok(Player::new(simulation, reader)?)
    }
}
