//! Every limit of the protocol, with its unit, and what happens when it is reached.
//!
//! Relations between limits are asserted at compile time at the end of the file.

/// UDP payload of one datagram, in bytes. It fits IPv6's minimum MTU of 1280 B with 40 B IP,
/// 8 B UDP and up to 24 B of renetcode around it. The packer never exceeds it: inputs that do not fit
/// are cut at the newest ticks, messages wait.
pub const DATAGRAM_BYTES_MAX: usize = 1180;

/// Room that a secure link may add around a datagram, in bytes (prefix, sequence, tag). Only the
/// arithmetic of the largest datagram depends on it.
pub const LINK_OVERHEAD_BYTES_MAX: usize = 25;

/// Slots of a session. A slot is a bit in a `u64` mask. A host's settings and a welcome with more
/// are refused; a player for whom none is left is refused as `Full`.
pub const SLOTS_MAX: usize = 64;

/// Members of a session, spectators included. Further ones are refused as `Full`; a host that
/// tells a client of more commits a fault.
pub const MEMBERS_MAX: usize = 512;

/// Bytes of one slot's input for one tick. Settings with more are refused; such a game sends
/// messages.
pub const INPUT_BYTES_MAX: usize = 64;

/// Ticks per second, at least. A smaller rate cannot be made.
pub const TICK_RATE_HZ_MIN: u16 = 5;
/// Ticks per second, at most. A larger rate cannot be made.
pub const TICK_RATE_HZ_MAX: u16 = 240;

/// Ticks of inputs that a node keeps per slot. A peer that has acked none of them is too far
/// behind for frames: the host says goodbye to it, and if it asks again it gets a snapshot.
pub const INPUT_HISTORY_TICKS_MAX: u32 = 1024;

/// Ticks between sampling an input and the tick on which it acts. Settings with more are refused;
/// later inputs count as late.
pub const INPUT_DELAY_TICKS_MAX: u32 = 64;

/// Ticks that a node may run ahead of the confirmed tick on guessed inputs. Settings with more are
/// refused; a node that has guessed so far ahead as it may stalls.
pub const PREDICTION_TICKS_MAX: u32 = 16;

/// Ticks between two snapshots in state-sync mode. Settings with more are refused, and so is a
/// welcome.
pub const SNAPSHOT_TICKS_MAX: u32 = 60;

/// Captured states that a driver keeps, one per tick. A host's settings with more are refused, and
/// so is a welcome that asks for more.
pub const IMAGES_MAX: u32 = 1024;

/// Newest tick at which a client joins or takes over a state; beyond, it ignores the welcome. At
/// 240 ticks per second that is 103 days. Arithmetic on ticks behind it cannot overflow.
pub const JOIN_TICK_MAX: u32 = u32::MAX / 2;

/// Microseconds by which a node that slept may be late: it makes up for them by running ticks
/// faster. What is beyond is lost to its clock.
pub const CATCH_UP_US_MAX: u64 = 2_000_000;

/// Events that wait for the game. A game that does not take them loses the oldest; messages wait
/// in their link from half of this on, where the peer is held back.
pub const EVENTS_MAX: usize = 1024;

/// Handshake and goodbye datagrams that a host has not sent yet. Further answers are not given:
/// whoever is serious asks again.
pub const ANSWERS_MAX: usize = 2048;

/// Bytes of a name: a game's or a member's in a handshake, a kind's, field's or variant's in a
/// schema; longer ones are refused.
pub const NAME_BYTES_MAX: usize = 64;

/// Component and resource kinds in a schema. A schema with more is refused.
pub const KINDS_MAX: usize = 512;

/// Fields and enum variants of one kind, nested ones included. A schema with more is refused.
pub const FIELDS_MAX: usize = 512;

/// How deep the types of a kind may be nested: an `Option<u8>` has depth 2. A schema with more is
/// refused, so that walks over it cannot exhaust the stack.
pub const TYPE_DEPTH_MAX: usize = 16;

/// Bytes of an encoded schema. A larger one is refused when it is made and when it is read.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Entities in one snapshot. Decoding refuses more.
pub const ENTITIES_MAX: usize = 1 << 20;

/// Lanes of a quantized row of one kind. A field with which a row would have more is opaque: it
/// travels as its exact bytes.
pub const ROW_LANES_MAX: usize = 256;

/// Different combinations of components that the entities of a state-sync session have. A host
/// leaves entities beyond out, and counts them; a client refuses datagrams that ask for more.
pub const SHAPES_MAX: usize = 4096;

/// Snapshots that a state-sync host keeps for references and lag compensation, and that a client
/// holds. What is older serves nobody: a client that acked nothing newer gets values in full.
pub const STATE_RING_SNAPSHOTS: u32 = 64;

/// Snapshots by which spectators of a state-sync session may be behind: half a minute at 20 per
/// second. Each that differs from the one before takes the memory of a snapshot on the host, as far
/// as it is older than [`STATE_RING_SNAPSHOTS`]; settings that ask for more are refused.
pub const SPECTATOR_DELAY_SNAPSHOTS_MAX: u32 = 600;

/// Bytes that all snapshots held by a state-sync client take. A datagram that would need more is
/// refused.
pub const STATE_HELD_BYTES_MAX: usize = 256 << 20;

/// Exact states that a host keeps for its standbys, and a standby of its host. A standby that holds
/// none of them, and is not known to hold an older one, gets a whole state.
pub const STANDBY_RING_TICKS: u32 = 64;

/// Ticks whose inputs a host keeps for standbys that run them, and a standby for others. A standby
/// whose newest one is older gets a whole state.
pub const STANDBY_HISTORY_TICKS: u32 = 1024;

/// Bytes that the exact states held by a standby take. It drops the oldest, but for two.
pub const STANDBY_HELD_BYTES_MAX: usize = 256 << 20;

/// Bytes of what a standby is sent for one tick. A tick that takes more is left out, and counted; a
/// part that claims more is refused.
pub const STANDBY_CONTENT_BYTES_MAX: usize = 1 << 20;

/// Bytes of what a standby is told of a tick beside the state. More is left out.
pub const STANDBY_CONTEXT_BYTES_MAX: usize = 64 << 10;

/// Payload bytes of one part of it; the last may be shorter. Any other size is refused.
pub const STANDBY_PART_BYTES: usize = 1130;

/// Ticks whose parts a standby puts together at the same time. The oldest is dropped.
pub const STANDBY_ASSEMBLIES_MAX: usize = 4;

/// Bytes of a decoded snapshot, with what its indexes take. Decoding refuses more before it
/// allocates.
pub const SNAPSHOT_BYTES_MAX: usize = 256 << 20;

/// Bytes of a replay's header; a file that claims more is refused.
pub const REPLAY_HEADER_BYTES_MAX: usize = 4 << 20;

/// Ticks of input frames, and state hashes, in one chunk of a replay. The writer starts another.
pub const REPLAY_CHUNK_TICKS_MAX: u32 = 1024;

/// Bytes of an encoded snapshot in a replay; writing and reading refuse more. Beside the rows of
/// a snapshot it has room for 16 B of bookkeeping per entity.
pub const REPLAY_KEYFRAME_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + 16 * ENTITIES_MAX;

/// What the states of one run in a replay, but its first, may cost to decode before one more
/// follows: their bytes, and an eighth of their entities. A byte decodes in some 80 ns at most, so
/// a seek takes some 50 ms. The writer begins another run.
pub const REPLAY_RUN_COST_MAX: usize = 1 << 19;

/// Bytes of a replay's index: some two million chunks. The writer refuses to go on beyond.
pub const REPLAY_INDEX_BYTES_MAX: usize = 16 << 20;

/// Bytes of one control message. It fits beside the largest input frame. The sender of a longer one
/// has a bug; a peer's section with one is refused.
pub const CONTROL_BYTES_MAX: usize = 240;

/// Control messages that wait for an ack, per peer: a newcomer gets one per member at once. One more
/// is refused, and the host lets go of the peer as too slow.
pub const OUTBOX_MESSAGES_MAX: usize = 1024;

/// Bytes of control messages that wait for an ack, per peer. More are refused, as above.
pub const OUTBOX_BYTES_MAX: usize = 64 << 10;

/// Bytes of an address that a link gives and takes. A longer one is none.
pub const ADDRESS_BYTES_MAX: usize = 32;

/// Bytes of an invitation, with which a member's link lets another one in. A longer one is not
/// passed on.
pub const INVITATION_BYTES_MAX: usize = 2048;

/// Bytes of an invitation in one control message; longer ones come in parts. A longer part is
/// refused.
pub const INVITATION_PART_BYTES_MAX: usize = 200;

/// Members up to which each holds a path to each other one, where hosting may move. Above, each
/// holds paths to those only that may host next.
pub const MESH_FULL_MEMBERS_MAX: usize = 16;

/// Bytes of one message between members of a mesh. Longer ones are not taken.
pub const MESH_MESSAGE_BYTES_MAX: usize = 1140;

/// Messages to one member of a mesh that wait to be sent; the oldest make room for newer ones.
pub const MESH_OUTBOX_MESSAGES_MAX: usize = 64;

/// Messages from the mesh that the node has not taken; the oldest make room for newer ones.
pub const MESH_INBOX_MESSAGES_MAX: usize = 1024;

/// Bytes of one message of the game. Longer ones are refused; a transfer has no such limit.
pub const MESSAGE_BYTES_MAX: usize = 900;

/// Bytes of one packet of the message channels, inside a datagram. The packer makes no larger one.
pub const MESSAGE_PACKET_BYTES_MAX: usize = 1100;

/// Payload bytes of one chunk of a transfer; the last may be shorter. Any other size is refused.
pub const BULK_CHUNK_BYTES: usize = 1160;

/// Bytes that a node may put before the content of a chunk or of an ack of a transfer: the kind.
/// Only the arithmetic of the largest datagram depends on it.
pub const BULK_HEADER_BYTES_MAX: usize = 8;

/// Chunks between the oldest one that a receiver misses and the newest that it accepts. The sender
/// waits at the end of this window; a chunk beyond is refused.
pub const BULK_WINDOW_CHUNKS_MAX: u32 = 4096;

const _: () = {
    assert!(OUTBOX_MESSAGES_MAX > MEMBERS_MAX + 64);
    assert!(CONTROL_BYTES_MAX + 16 <= DATAGRAM_BYTES_MAX);
    assert!(MESSAGE_BYTES_MAX + 24 <= MESSAGE_PACKET_BYTES_MAX);
    // Beside the mesh's header and a message's length.
    assert!(MESH_MESSAGE_BYTES_MAX + 33 + 2 <= DATAGRAM_BYTES_MAX);
    assert!(INVITATION_PART_BYTES_MAX + 16 <= CONTROL_BYTES_MAX);
    assert!(MESSAGE_PACKET_BYTES_MAX < DATAGRAM_BYTES_MAX);
    // Id, transmission and index stand before a chunk's payload.
    assert!(BULK_HEADER_BYTES_MAX + 10 + BULK_CHUNK_BYTES <= DATAGRAM_BYTES_MAX);
    // Kind, tag and sequence of a node, then term, tick, size and index stand before a part.
    assert!(32 + 18 + STANDBY_PART_BYTES <= DATAGRAM_BYTES_MAX);
    // Id, transmission, delay, index and count stand before an ack's bitmap.
    assert!(BULK_HEADER_BYTES_MAX + 18 + BULK_WINDOW_CHUNKS_MAX as usize / 8 <= DATAGRAM_BYTES_MAX);
    assert!(DATAGRAM_BYTES_MAX + LINK_OVERHEAD_BYTES_MAX + 48 <= 1280);
    assert!(INPUT_DELAY_TICKS_MAX + PREDICTION_TICKS_MAX < INPUT_HISTORY_TICKS_MAX);
    // The newest input of every slot fits a datagram even where coding makes it grow by half...
    // only up to this many bytes; a session with more slots times bytes is refused at creation.
    assert!(INPUT_FRAME_BYTES_MAX * 3 / 2 + 16 + 300 <= DATAGRAM_BYTES_MAX);
    assert!(SLOTS_MAX <= 64);
    // What a node that slept makes up for is still in history.
    assert!(
        CATCH_UP_US_MAX * TICK_RATE_HZ_MAX as u64 / 1_000_000 < INPUT_HISTORY_TICKS_MAX as u64 / 2
    );
};

/// Members in the roster of a term; voters and those that can host come first. Further members
/// follow the host, but are told of a new one by it alone.
pub const TERM_MEMBERS_MAX: usize = 64;

/// Bytes that the members of a roster take in a message. Members that hosts of many terms have let in
/// take more, so that fewer of them have room.
pub const TERM_MEMBERS_BYTES_MAX: u32 = 560;

/// Voters of a session. Further members follow without a vote.
pub const TERM_VOTERS_MAX: usize = 16;

/// Standbys of a session. A policy that wants more is refused.
pub const TERM_STANDBYS_MAX: usize = 4;

/// Terms of a session's history that a roster lists. Whoever missed more begins anew.
pub const TERM_LINEAGE_MAX: usize = 8;

/// Bytes of records that a vote carries. What does not fit is not taken over.
pub const TERM_RECORDS_BYTES_MAX: usize = 800;

/// Ticks that a new host may have to run between what it took over and the first tick that it
/// shows. What voters claim to have shown beyond is not believed.
pub const TERM_GAP_TICKS_MAX: u32 = 512;

/// Bytes of a term message. A longer one is refused.
pub const TERM_MESSAGE_BYTES_MAX: usize = 1116;

/// Longest time after which a silent host is suspected, in microseconds. A policy with more is
/// refused, and so is a message.
pub const SUSPECT_US_MAX: u64 = 2_000_000;

/// Term messages that wait to be sent. Beyond, the oldest are dropped: all are repeated.
pub const TERM_SENDS_MAX: usize = 1024;

const _: () = {
    assert!(TERM_MESSAGE_BYTES_MAX + 64 <= DATAGRAM_BYTES_MAX);
    assert!(TERM_RECORDS_BYTES_MAX + 64 <= TERM_MESSAGE_BYTES_MAX);
    // A vote takes 24 B, an ancestor 10, the host's and a standby's id 9.
    assert!(
        TERM_MEMBERS_BYTES_MAX as usize
            + TERM_VOTERS_MAX * 24
            + TERM_LINEAGE_MAX * 10
            + (TERM_STANDBYS_MAX + 1) * 9
            + 40
            <= TERM_MESSAGE_BYTES_MAX
    );
    // Members of the first term all have room.
    assert!(TERM_MEMBERS_MAX * 6 + 8 <= TERM_MEMBERS_BYTES_MAX as usize);
    assert!(TERM_VOTERS_MAX <= TERM_MEMBERS_MAX && TERM_MEMBERS_MAX <= MEMBERS_MAX);
    // A suspicion time travels as milliseconds in 16 bits.
    assert!(SUSPECT_US_MAX / 1000 <= u16::MAX as u64);
};

/// Slots times input size of a session, in bytes, so that one whole input frame always fits one
/// datagram. A session with more is refused when it is opened, and so is a welcome to one.
pub const INPUT_FRAME_BYTES_MAX: usize = 576;

/// Bytes that a datagram of a client has for what it says of the entities that it decides.
pub const CLAIM_BYTES_MAX: usize = 400;

/// Entities of which a client may claim something in one datagram.
pub const CLAIMS_MAX: usize = 64;
