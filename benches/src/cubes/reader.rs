//! Reader and writer of the challenge's file format.
//!
//! A file is a row of snapshots, a snapshot [`CUBES`] records, a record eight little-endian `i32`:
//! largest, a, b, c, x, y, z, interacting. There is no header, so the size is the only check of the
//! whole and the bounds of each value the only check of a part.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::{CUBES, Cube, Frame, ORIENTATION_MAX, POSITION_XY_MAX, POSITION_Z_MAX, empty_frame};

/// Bytes of a record.
const RECORD: usize = 32;

/// Bytes of a snapshot.
const SNAPSHOT: usize = CUBES * RECORD;

/// Most snapshots that [`read`] takes: five and a half minutes, 360 MB in memory.
pub const FRAMES_MAX: usize = 20_000;

/// Why a scene cannot be read.
#[derive(Debug)]
pub enum SceneError {
    /// The file cannot be read.
    Io(io::Error),
    /// The file holds no snapshot.
    Empty,
    /// The size is not a whole number of snapshots.
    Size {
        /// Bytes beyond the last whole snapshot.
        rest: u64,
    },
    /// The file holds more than [`FRAMES_MAX`] snapshots.
    TooLong {
        /// Snapshots in the file.
        frames: u64,
    },
    /// A value is out of its bounds.
    Value {
        /// Snapshot, from 0.
        frame: usize,
        /// Record in the snapshot, from 0.
        cube: usize,
        /// Name of the value.
        field: &'static str,
        /// What the file says.
        value: i32,
    },
}

impl fmt::Display for SceneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the scene cannot be read: {error}"),
            Self::Empty => write!(f, "the scene holds no snapshot"),
            Self::Size { rest } => write!(
                f,
                "the scene ends in the middle of a snapshot: {rest} of {SNAPSHOT} bytes"
            ),
            Self::TooLong { frames } => write!(
                f,
                "the scene holds {frames} snapshots, more than {FRAMES_MAX}"
            ),
            Self::Value {
                frame,
                cube,
                field,
                value,
            } => write!(
                f,
                "snapshot {frame}, cube {cube}: {field} is {value}, out of its bounds"
            ),
        }
    }
}

impl std::error::Error for SceneError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Empty | Self::Size { .. } | Self::TooLong { .. } | Self::Value { .. } => None,
        }
    }
}

impl From<io::Error> for SceneError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The whole scene in the file at `path`.
///
/// # Errors
/// If the file cannot be read, is not a whole number of snapshots from 1 to [`FRAMES_MAX`], or holds
/// a value out of its bounds. The size is checked before anything is allocated for it.
pub fn read(path: &Path) -> Result<Vec<Frame>, SceneError> {
    let file = File::open(path)?;
    let (bytes, snapshot) = (file.metadata()?.len(), SNAPSHOT as u64);
    if bytes % snapshot != 0 {
        return Err(SceneError::Size {
            rest: bytes % snapshot,
        });
    }
    let frames = bytes / snapshot;
    if frames == 0 {
        return Err(SceneError::Empty);
    }
    if frames > FRAMES_MAX as u64 {
        return Err(SceneError::TooLong { frames });
    }
    Reader::new(BufReader::with_capacity(1 << 16, file)).collect()
}

/// Writes a scene that [`read`] takes.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, scene: &[Frame]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for cube in scene.iter().flat_map(|frame| frame.iter()) {
        let [a, b, c] = cube.orientation.map(i32::from);
        let [x, y, z] = cube.position;
        let record = [
            cube.largest.into(),
            a,
            b,
            c,
            x,
            y,
            z,
            cube.interacting.into(),
        ];
        for word in record {
            file.write_all(&i32::to_le_bytes(word))?;
        }
    }
    file.flush()
}

/// Snapshots of a scene one by one, from any source of bytes. Ends after an error.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    bytes: Vec<u8>,
    frame: usize,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Starts at the beginning of `source`.
    pub fn new(source: R) -> Self {
        Self {
            source,
            bytes: vec![0; SNAPSHOT],
            frame: 0,
            ended: false,
        }
    }

    fn snapshot(&mut self) -> Result<Option<Frame>, SceneError> {
        let mut filled = 0;
        while filled < SNAPSHOT {
            match self.source.read(&mut self.bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(SceneError::Size {
                        rest: filled as u64,
                    });
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.frame == FRAMES_MAX {
            return Err(SceneError::TooLong {
                frames: self.frame as u64 + 1,
            });
        }
        let mut frame = empty_frame();
        let (records, _rest) = self.bytes.as_chunks::<RECORD>();
        for (index, (cube, record)) in frame.iter_mut().zip(records).enumerate() {
            *cube = cube_of(record).map_err(|(field, value)| SceneError::Value {
                frame: self.frame,
                cube: index,
                field,
                value,
            })?;
        }
        self.frame += 1;
        Ok(Some(frame))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Frame, SceneError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.snapshot().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The cube of a record, or the value that is out of its bounds.
fn cube_of(record: &[u8; RECORD]) -> Result<Cube, (&'static str, i32)> {
    let (words, _rest) = record.as_chunks::<4>();
    let word = |index: usize| i32::from_le_bytes(words[index]);
    let component = |index: usize, name: &'static str| match u16::try_from(word(index)) {
        Ok(value) if value <= ORIENTATION_MAX => Ok(value),
        _ => Err((name, word(index))),
    };
    let position = |index: usize, name: &'static str, min: i32, max: i32| {
        if (min..=max).contains(&word(index)) {
            Ok(word(index))
        } else {
            Err((name, word(index)))
        }
    };
    Ok(Cube {
        largest: match u8::try_from(word(0)) {
            Ok(value) if value < 4 => value,
            _ => return Err(("largest", word(0))),
        },
        orientation: [component(1, "a")?, component(2, "b")?, component(3, "c")?],
        position: [
            position(4, "x", -POSITION_XY_MAX, POSITION_XY_MAX)?,
            position(5, "y", -POSITION_XY_MAX, POSITION_XY_MAX)?,
            position(6, "z", 0, POSITION_Z_MAX)?,
        ],
        interacting: match word(7) {
            0 => false,
            1 => true,
            value => return Err(("interacting", value)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(snapshots: usize, change: impl Fn(usize, &mut [i32; 8])) -> Vec<u8> {
        let mut bytes = Vec::new();
        for index in 0..snapshots * CUBES {
            let mut record = [3, 1, 2, 511, -16_383, 16_383, 8_191, 1];
            change(index, &mut record);
            bytes.extend(record.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    #[test]
    fn every_value_lands_in_its_field() {
        let scene: Vec<Frame> = Reader::new(&bytes(2, |_, _| {})[..])
            .collect::<Result<_, _>>()
            .expect("in bounds");
        assert_eq!(scene.len(), 2);
        let expected = Cube {
            largest: 3,
            orientation: [1, 2, 511],
            position: [-16_383, 16_383, 8_191],
            interacting: true,
        };
        assert!(
            scene
                .iter()
                .all(|frame| frame.iter().all(|cube| *cube == expected))
        );
    }

    #[test]
    fn hostile_files_are_refused_with_a_sentence() {
        let cases: [(usize, i32, &str); 9] = [
            (0, 4, "largest is 4"),
            (0, -1, "largest is -1"),
            (2, 512, "b is 512"),
            (3, i32::MIN, "c is -2147483648"),
            (4, 16_384, "x is 16384"),
            (5, -16_384, "y is -16384"),
            (6, -1, "z is -1"),
            (6, 8_192, "z is 8192"),
            (7, 2, "interacting is 2"),
        ];
        for (field, value, sentence) in cases {
            let hostile = bytes(2, |index, record| {
                if index == CUBES + 7 {
                    record[field] = value;
                }
            });
            let mut reader = Reader::new(&hostile[..]);
            assert!(matches!(reader.next(), Some(Ok(_))), "{sentence}");
            let error = match reader.next() {
                Some(Err(error)) => error.to_string(),
                other => panic!("{sentence}: {other:?}"),
            };
            assert!(error.starts_with("snapshot 1, cube 7: "), "{error}");
            assert!(error.contains(sentence), "{error}");
            assert!(reader.next().is_none(), "a reader ends after an error");
        }
    }

    #[test]
    fn a_torn_file_is_refused() {
        let whole = bytes(1, |_, _| {});
        let directory = std::env::temp_dir().join(format!("cubes-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a writable temporary directory");
        let path = directory.join("scene.bin");
        let cases = [
            (&whole[..], None),
            (
                &whole[..whole.len() - 1],
                Some("middle of a snapshot: 28831 of 28832"),
            ),
            (&whole[..0], Some("no snapshot")),
        ];
        for (bytes, expected) in cases {
            std::fs::write(&path, bytes).expect("a writable file");
            match (read(&path), expected) {
                (Ok(scene), None) => {
                    write(&path, &scene).expect("a writable file");
                    assert_eq!(std::fs::read(&path).expect("just written"), bytes);
                }
                (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{error}"),
                (result, expected) => panic!("{result:?} instead of {expected:?}"),
            }
        }
        std::fs::remove_dir_all(&directory).expect("our own directory");
        let torn = Reader::new(&whole[..40]).next();
        assert!(
            matches!(torn, Some(Err(SceneError::Size { rest: 40 }))),
            "{torn:?}"
        );
    }
}
