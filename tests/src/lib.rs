//! Test tools of Phalanx: toy games and a cluster of real nodes in virtual time.
//!
//! [`cluster::Cluster`] runs hosts and clients, bytes and all, over conditioned paths. One seed
//! decides everything; a failure prints it with the line that repeats the run.

pub mod cluster;
pub mod counting;
pub mod faults;
pub mod gaps;
pub mod pianist;
pub mod reign;
pub mod seeds;
pub mod succession;
pub mod swarm;
pub mod toy;
pub mod watched;
pub mod yard;
