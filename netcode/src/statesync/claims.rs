//! What a client says of the entities that it decides, and how the host reads it.
//!
//! A claim is the quantized rows of one entity, whole: each datagram decodes alone. A client sends
//! what changed since the newest claim that the host has, in every datagram until one of them is
//! acked. The newest wins.
//!
//! ```text
//! section: entity count | per entity: id (gap to the one before) | kind count |
//!          per kind: number | lanes, bit-packed | count and opaque bytes, where the kind has such
//! ```

use std::collections::{BTreeMap, VecDeque};

use crate::id::{NetId, Slot};
use crate::limits::{CLAIM_BYTES_MAX, CLAIMS_MAX};
use crate::simulation::AUTHORITY_KIND;
use crate::state::{EntityRef, KindShape, Lane, Schema, Shapes, Snapshot, Visibility, WireLayout};
use crate::tick::Seq;
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};

/// Kinds that one claim may have.
const CLAIM_KINDS_MAX: usize = 64;

/// Datagrams whose claims are remembered until they are acked.
const SENT_MAX: usize = 64;

/// Prefix of kinds that say what an entity is to the session: nobody claims these.
const RESERVED_PREFIX: &str = "phalanx.";

/// Which kinds of `schema` clients may say something of, by number: components that they see, but
/// for those that tell what an entity is to the session, above all whose it is.
#[must_use]
pub fn claimable_kinds(schema: &Schema) -> Vec<bool> {
    let is_claimable = |kind: &crate::state::KindSchema| {
        kind.visibility == Visibility::Client
            && kind.shape == KindShape::Component
            && !kind.name.starts_with(RESERVED_PREFIX)
    };
    schema.kinds().iter().map(is_claimable).collect()
}

/// The number of the kind that says who decides an entity, if the game has it.
pub(crate) fn authority_kind(schema: &Schema) -> Option<u16> {
    let mut kinds = schema.kinds().iter();
    let index = kinds.position(|kind| kind.name == AUTHORITY_KIND)?;
    let is_seen = schema.kinds()[index].visibility == Visibility::Client;
    u16::try_from(index).ok().filter(|_| is_seen)
}

/// The slot that decides `entity`; `None` for what the host decides. `kind` is the number of
/// [`AUTHORITY_KIND`].
#[must_use]
pub fn authority_of(
    layout: &WireLayout,
    shapes: &Shapes,
    kind: u16,
    entity: &EntityRef<'_>,
) -> Option<Slot> {
    let shape = shapes.get(entity.shape);
    let place = shape.kinds.binary_search(&kind).ok()?;
    let at = usize::try_from(shape.starts[place]).ok()?;
    // A slot is one lane, whatever bounds it has.
    let is_lane = layout.kind(kind)?.lanes.len() == 1;
    let lane = entity.lanes.get(at).filter(|_| is_lane)?;
    u8::try_from(*lane).ok().map(Slot)
}

/// One entity of a claim section, in the exact form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The entity.
    pub id: NetId,
    /// Kinds by number, ascending, and where each row ends in `bytes`.
    pub rows: Vec<(u16, usize)>,
    /// The rows, one after the other.
    pub bytes: Vec<u8>,
}

impl Claim {
    /// The rows by kind.
    pub fn rows(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let mut start = 0;
        self.rows.iter().map(move |&(kind, end)| {
            let row = &self.bytes[start..end];
            start = end;
            (kind, row)
        })
    }
}

/// Reads a claim section.
///
/// # Errors
/// If it is malformed, or claims kinds that are not `claimable`. What it costs is bounded by its
/// length.
pub fn read_claims(
    layout: &WireLayout,
    claimable: &[bool],
    section: &[u8],
) -> Result<Vec<Claim>, DecodeError> {
    let mut reader = Reader::new(section);
    let count = usize::from(reader.u8()?);
    if count == 0 || count > CLAIMS_MAX {
        return Err(DecodeError::Invalid("a number of claims out of bounds"));
    }
    let mut claims = Vec::with_capacity(count);
    let mut before = 0_u64;
    for _ in 0..count {
        let gap = reader.varint()?;
        let id = before.checked_add(gap).filter(|_| gap > 0);
        before = id.ok_or(DecodeError::Invalid("claims are out of order"))?;
        claims.push(read_claim(layout, claimable, before, &mut reader)?);
    }
    reader.finish()?;
    Ok(claims)
}

fn read_claim(
    layout: &WireLayout,
    claimable: &[bool],
    id: u64,
    reader: &mut Reader<'_>,
) -> Result<Claim, DecodeError> {
    let mut claim = Claim {
        id: NetId::from_bits(id),
        ..Claim::default()
    };
    let kinds = usize::from(reader.u8()?);
    if kinds == 0 || kinds > CLAIM_KINDS_MAX {
        return Err(DecodeError::Invalid("a claim of too few or many kinds"));
    }
    let mut lanes = Vec::new();
    for _ in 0..kinds {
        let number = reader.varint_u32()?;
        let number = u16::try_from(number)
            .ok()
            .filter(|&number| claimable.get(usize::from(number)) == Some(&true))
            .ok_or(DecodeError::Invalid("a claim of what no client decides"))?;
        let in_order = claim.rows.last().is_none_or(|&(last, _)| last < number);
        let layout = layout.kind(number).filter(|_| in_order);
        let layout = layout.ok_or(DecodeError::Invalid("kinds of a claim are out of order"))?;
        lanes.clear();
        unpack(&layout.lanes, reader, &mut lanes)?;
        let mut opaque: &[u8] = &[];
        if layout.has_opaque() {
            opaque = reader.counted(CLAIM_BYTES_MAX)?;
        }
        layout.dequantize(&lanes, &mut opaque, &mut claim.bytes)?;
        if !opaque.is_empty() {
            return Err(DecodeError::Trailing(opaque.len()));
        }
        claim.rows.push((number, claim.bytes.len()));
    }
    Ok(claim)
}

/// Lanes as their distance from the least value, each in the bits that its bounds need; the last
/// byte is filled up with zeros.
fn pack(layout: &[Lane], lanes: &[i32], out: &mut Vec<u8>) {
    let (mut kept, mut bits) = (0_u64, 0);
    for (lane, &value) in layout.iter().zip(lanes) {
        kept |= u64::from(value.abs_diff(lane.min)) << bits;
        bits += lane.bits();
        while bits >= 8 {
            out.push(kept.to_le_bytes()[0]);
            kept >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(kept.to_le_bytes()[0]);
    }
}

fn unpack(layout: &[Lane], reader: &mut Reader<'_>, out: &mut Vec<i32>) -> Result<(), DecodeError> {
    let (mut kept, mut bits) = (0_u64, 0);
    for lane in layout {
        while bits < lane.bits() {
            kept |= u64::from(reader.u8()?) << bits;
            bits += 8;
        }
        let value = kept & ((1 << lane.bits()) - 1);
        kept >>= lane.bits();
        bits -= lane.bits();
        let value = i64::from(lane.min) + i64::try_from(value).unwrap_or(i64::MAX);
        let value = i32::try_from(value).ok().filter(|&value| value <= lane.max);
        out.push(value.ok_or(DecodeError::Invalid("a claimed value is out of bounds"))?);
    }
    if kept == 0 {
        Ok(())
    } else {
        Err(DecodeError::Invalid("a claim is not filled up with zeros"))
    }
}

/// What a client has claimed, and what of it the host has.
#[derive(Debug, Default)]
pub struct Claims {
    claimable: Vec<bool>,
    entities: BTreeMap<NetId, Entity>,
    /// Datagrams with the claims in them, oldest first.
    sent: VecDeque<(Seq, Vec<(NetId, u32)>)>,
    version: u32,
    /// Where the next datagram begins, when not all fit one.
    from: NetId,
    /// Entities whose rows do not fit a datagram, or that are one too many.
    pub too_large: u64,
}

#[derive(Debug, Default)]
struct Entity {
    /// Its claim behind the id.
    body: Vec<u8>,
    version: u32,
    acked: bool,
}

impl Claims {
    /// Nothing is claimed yet.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        Self {
            claimable: claimable_kinds(schema),
            ..Self::default()
        }
    }

    /// Whether rows of kind number `kind` are claimed.
    #[must_use]
    pub fn is_claimable(&self, kind: usize) -> bool {
        self.claimable.get(kind) == Some(&true)
    }

    /// Takes in the rows of all entities that this client decides.
    pub fn update(
        &mut self,
        layout: &WireLayout,
        state: &Snapshot,
        is_own: impl Fn(NetId) -> bool,
    ) {
        let mut bodies: BTreeMap<NetId, (u8, Vec<u8>)> = BTreeMap::new();
        let (mut lanes, mut opaque, mut clamped) = (Vec::new(), Vec::new(), 0);
        for (number, rows) in state.kinds.iter().enumerate() {
            let layout = u16::try_from(number).ok().and_then(|it| layout.kind(it));
            let (Some(layout), Some(true)) = (layout, self.claimable.get(number)) else {
                continue;
            };
            for (id, row) in rows.rows().filter(|&(id, _)| is_own(id)) {
                lanes.clear();
                opaque.clear();
                let read = layout.quantize(row, &mut lanes, &mut opaque, &mut clamped);
                if read.is_err() {
                    continue;
                }
                let (kinds, body) = bodies.entry(id).or_default();
                if usize::from(*kinds) >= CLAIM_KINDS_MAX {
                    continue;
                }
                *kinds += 1;
                put_varint(body, number as u64);
                pack(&layout.lanes, &lanes, body);
                if layout.has_opaque() {
                    put_counted(body, &opaque);
                }
            }
        }
        self.entities.retain(|id, _| bodies.contains_key(id));
        for (id, (kinds, mut body)) in bodies {
            body.insert(0, kinds);
            // Beside it stand the number of claims and its id.
            if body.len() + 11 > CLAIM_BYTES_MAX {
                self.too_large += 1;
                self.entities.remove(&id);
                continue;
            }
            let entity = self.entities.entry(id).or_default();
            if entity.body != body {
                self.version = self.version.wrapping_add(1);
                *entity = Entity {
                    body,
                    version: self.version,
                    acked: false,
                };
            }
        }
    }

    /// Forgets everything: this client decides nothing any more, or is on a new link.
    pub fn clear(&mut self) {
        self.entities.clear();
        self.sent.clear();
    }

    /// Writes the section of datagram `seq` into `out`; nothing if the host has everything.
    pub fn write(&mut self, seq: Seq, out: &mut Vec<u8>) {
        out.clear();
        let due = |range: &(&NetId, &Entity)| !range.1.acked;
        let later = self.entities.range(self.from..).filter(due);
        let earlier = self.entities.range(..self.from).filter(due);
        let mut chosen: Vec<(NetId, &Entity)> = Vec::new();
        let mut bytes = 1;
        self.from = NetId::NONE;
        let mut left_out = None;
        for (&id, entity) in later.chain(earlier) {
            let cost = entity.body.len() + 10;
            if bytes + cost > CLAIM_BYTES_MAX || chosen.len() >= CLAIMS_MAX {
                left_out = Some(id);
                break;
            }
            bytes += cost;
            chosen.push((id, entity));
        }
        self.from = left_out.unwrap_or(NetId::NONE);
        if chosen.is_empty() {
            return;
        }
        chosen.sort_unstable_by_key(|&(id, _)| id);
        out.push(u8::try_from(chosen.len()).unwrap_or(u8::MAX));
        let mut before = 0;
        for (id, entity) in &chosen {
            put_varint(out, id.bits() - before);
            before = id.bits();
            out.extend_from_slice(&entity.body);
        }
        let chosen = chosen.iter().map(|(id, entity)| (*id, entity.version));
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((seq, chosen.collect()));
    }

    /// The host has accepted datagram `seq`.
    pub fn on_ack(&mut self, seq: Seq) {
        while let Some((sent, claims)) = self.sent.pop_front_if(|(sent, _)| *sent <= seq) {
            if sent != seq {
                continue;
            }
            for (id, version) in claims {
                if let Some(entity) = self.entities.get_mut(&id)
                    && entity.version == version
                {
                    entity.acked = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;
    use crate::simulation::OWNER_KIND;
    use crate::state::{ExactType, FieldSchema, KindSchema, WireForm};
    use crate::tick::Tick;

    const BODY: usize = 0;

    fn schema() -> Schema {
        let kind = |name: &str, visibility, fields| KindSchema {
            name: name.to_owned(),
            version: 1,
            shape: KindShape::Component,
            visibility,
            fields,
        };
        let place = FieldSchema::new("x", ExactType::I32).wire(WireForm::Range {
            min: -1000,
            max: 1000,
        });
        let slot = || vec![FieldSchema::new("slot", ExactType::U8)];
        Schema::new(vec![
            kind(
                "Body",
                Visibility::Client,
                vec![place, FieldSchema::new("name", ExactType::U64)],
            ),
            kind("Secret", Visibility::HostOnly, slot()),
            kind(OWNER_KIND, Visibility::Client, slot()),
            kind(AUTHORITY_KIND, Visibility::Client, slot()),
        ])
        .unwrap()
    }

    fn state(count: u64, place: i32) -> Snapshot {
        let mut state = Snapshot {
            tick: Tick::new(1),
            kinds: vec![Default::default(); 4],
        };
        for id in 1..=count {
            let id = NetId::from_bits(id);
            state.kinds[BODY].push(id, |out| {
                out.extend(place.to_le_bytes());
                out.extend(id.bits().to_le_bytes());
            });
            for kind in 1..4 {
                state.kinds[kind].push(id, |out| out.push(1));
            }
        }
        state
    }

    #[test]
    fn claims_arrive_whole_and_name_nothing_that_is_the_hosts() {
        let schema = schema();
        let layout = WireLayout::new(&schema);
        let mut claims = Claims::new(&schema);
        claims.update(&layout, &state(3, -77), |id| id.bits() != 2);
        let mut section = Vec::new();
        claims.write(Seq::new(5), &mut section);
        let read = read_claims(&layout, &claimable_kinds(&schema), &section).unwrap();
        let ids: Vec<u64> = read.iter().map(|claim| claim.id.bits()).collect();
        assert_eq!(ids, [1, 3]);
        let sent = state(3, -77);
        for claim in &read {
            let rows: Vec<(u16, &[u8])> = claim.rows().collect();
            let row = sent.kinds[BODY].find(claim.id).unwrap();
            assert_eq!(rows, [(0, row)]);
        }
        // One byte of counts and one of the kind, 11 and 64 bits.
        assert_eq!(section.len(), 1 + 2 * (1 + 2 + 10));
    }

    #[test]
    fn claims_are_repeated_until_a_datagram_with_the_newest_is_acked() {
        let schema = schema();
        let layout = WireLayout::new(&schema);
        let mut claims = Claims::new(&schema);
        let mut section = Vec::new();
        claims.update(&layout, &state(1, 1), |_| true);
        claims.write(Seq::new(1), &mut section);
        claims.update(&layout, &state(1, 2), |_| true);
        claims.write(Seq::new(2), &mut section);
        claims.on_ack(Seq::new(1));
        claims.write(Seq::new(3), &mut section);
        assert!(!section.is_empty(), "the host has an older claim");
        claims.on_ack(Seq::new(3));
        claims.write(Seq::new(4), &mut section);
        assert!(section.is_empty(), "the host has everything");
        claims.update(&layout, &state(1, 2), |_| true);
        claims.write(Seq::new(5), &mut section);
        assert!(section.is_empty(), "nothing has changed");
    }

    #[test]
    fn many_claims_take_turns() {
        let schema = schema();
        let layout = WireLayout::new(&schema);
        let mut claims = Claims::new(&schema);
        claims.update(&layout, &state(200, 9), |_| true);
        let mut seen = std::collections::BTreeSet::new();
        for seq in 1..30 {
            let mut section = Vec::new();
            claims.write(Seq::new(seq), &mut section);
            assert!(section.len() <= CLAIM_BYTES_MAX);
            let read = read_claims(&layout, &claimable_kinds(&schema), &section).unwrap();
            seen.extend(read.iter().map(|claim| claim.id));
        }
        assert_eq!(seen.len(), 200);
    }

    #[test]
    fn bad_sections_are_refused_and_never_claim_what_is_the_hosts() {
        let schema = schema();
        let layout = WireLayout::new(&schema);
        let claimable = claimable_kinds(&schema);
        let mut claims = Claims::new(&schema);
        claims.update(&layout, &state(4, 500), |_| true);
        let mut good = Vec::new();
        claims.write(Seq::new(1), &mut good);
        let read = |bytes: &[u8]| read_claims(&layout, &claimable, bytes);
        for kind in 1..=4 {
            assert!(read(&[1, 1, 1, kind, 0]).is_err(), "kind {kind}");
        }
        assert!(read(&[]).is_err());
        assert!(read(&[0]).is_err());
        assert!(read(&[255, 1]).is_err());
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut prng = Prng::new(3);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=prng.below(3) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = prng.next_u64().to_le_bytes()[0];
            }
            match read(&bytes) {
                Err(_) => refused += 1,
                Ok(claims) => {
                    for claim in claims {
                        for (kind, row) in claim.rows() {
                            assert_eq!((kind, row.len()), (0, 12));
                            let place = i32::from_le_bytes(row[..4].try_into().unwrap());
                            assert!(place.abs() <= 1000, "{place}");
                        }
                    }
                }
            }
        }
        assert!(refused > 5000, "{refused}");
    }
}
