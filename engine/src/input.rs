//! What systems see of inputs, slots and the tick.

use bevy_ecs::resource::Resource;
use phalanx_macros::Networked;
use phalanx_netcode::id::Slot;
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::simulation::StepKind;
use phalanx_netcode::state::{Exact, ExactType};
use phalanx_netcode::tick::Tick;
use phalanx_netcode::wire::bytes::Reader;

/// The tick that a step leads to: systems of the first step see 1. After the step it is the tick
/// of the state.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CurrentTick(pub Tick);

/// How the running step came about. Sounds and effects belong to first steps only; nothing in the
/// state may depend on it.
#[derive(Resource, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepping(pub StepKind);

impl Stepping {
    /// Whether the tick runs for the first time on this node.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.0 == StepKind::First
    }
}

/// Which slots took part in the last step. A part of the state, so that a slot's join and leave
/// are seen by everyone in the same tick.
#[derive(Resource, Networked, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[networked(name = "phalanx.slots")]
pub struct SlotPresence {
    present: u64,
}

impl SlotPresence {
    /// Whether `slot` took part.
    #[must_use]
    pub fn is_present(&self, slot: Slot) -> bool {
        self.present & slot.bit() != 0
    }

    /// The slots that took part, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + use<> {
        slots_of(self.present)
    }

    pub(crate) fn mask(self) -> u64 {
        self.present
    }

    pub(crate) fn set_mask(&mut self, present: u64) {
        self.present = present;
    }
}

/// The inputs of all slots for the running tick.
///
/// A slot is absent before its player joins and after it left. Bytes that are not an input (a
/// hostile peer can send any) count as the default input, on every node.
#[derive(Resource, Clone, Debug)]
pub struct Inputs<T: Exact + Default + Send + Sync + 'static> {
    by_slot: Vec<Option<T>>,
    present: u64,
    present_before: u64,
}

impl<T: Exact + Default + Send + Sync + 'static> Default for Inputs<T> {
    fn default() -> Self {
        Self {
            by_slot: Vec::new(),
            present: 0,
            present_before: 0,
        }
    }
}

impl<T: Exact + Default + Send + Sync + 'static> Inputs<T> {
    /// The input of `slot`; `None` where the slot is absent.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.by_slot.get(slot.index())?.as_ref()
    }

    /// The present slots with their inputs, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        slots_of(self.present).filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// Whether `slot` takes part in this tick.
    #[must_use]
    pub fn is_present(&self, slot: Slot) -> bool {
        self.present & slot.bit() != 0
    }

    /// Slots that are present in this tick and were not in the tick before, ascending.
    pub fn joined(&self) -> impl Iterator<Item = Slot> + use<T> {
        slots_of(self.present & !self.present_before)
    }

    /// Slots that were present in the tick before and are not in this one, ascending.
    pub fn left(&self) -> impl Iterator<Item = Slot> + use<T> {
        slots_of(self.present_before & !self.present)
    }

    /// Takes over the inputs of `frame`. Slots that are `present` without being in it have the
    /// default input.
    pub(crate) fn load(&mut self, frame: &InputFrame, present_before: u64, present: u64) {
        self.by_slot.clear();
        self.by_slot
            .resize_with(usize::from(frame.slots()), || None);
        for (slot, bytes) in frame.inputs() {
            self.by_slot[slot.index()] = Some(decode(bytes));
        }
        for slot in slots_of(present & !frame.present()) {
            if let Some(input) = self.by_slot.get_mut(slot.index()) {
                *input = Some(T::default());
            }
        }
        self.present = present;
        self.present_before = present_before;
    }
}

/// The bytes of `input`, filled up with zeros to `size`.
pub(crate) fn encode<T: Exact>(input: &T, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    input.write_exact(&mut bytes);
    debug_assert!(bytes.len() <= size, "an input exceeds its own type's size");
    bytes.resize(size, 0);
    bytes
}

/// The input that `bytes` stand for; the default where they stand for none.
fn decode<T: Exact + Default>(bytes: &[u8]) -> T {
    let mut reader = Reader::new(bytes);
    match T::read_exact(&mut reader) {
        Ok(input) if reader.rest().iter().all(|&byte| byte == 0) => input,
        Ok(_) | Err(_) => T::default(),
    }
}

/// Bytes of the longest value of this type; `None` where there is no limit.
pub(crate) fn bytes_max(exact: &ExactType) -> Option<usize> {
    match exact {
        ExactType::Array(element, count) => bytes_max(element)?.checked_mul(usize::from(*count)),
        ExactType::Option(value) => bytes_max(value)?.checked_add(1),
        ExactType::List(_) | ExactType::Text => None,
        ExactType::Struct(fields) => fields.iter().try_fold(0_usize, |sum, field| {
            sum.checked_add(bytes_max(&field.exact)?)
        }),
        ExactType::Enum(variants) => {
            let mut longest = 0;
            for (_, _, fields) in variants {
                let len = fields.iter().try_fold(0_usize, |sum, field| {
                    sum.checked_add(bytes_max(&field.exact)?)
                })?;
                longest = longest.max(len);
            }
            Some(longest + 1)
        }
        ExactType::Bool
        | ExactType::U8
        | ExactType::U16
        | ExactType::U32
        | ExactType::U64
        | ExactType::I8
        | ExactType::I16
        | ExactType::I32
        | ExactType::I64
        | ExactType::F32
        | ExactType::F64
        | ExactType::NetId
        | ExactType::Vec2
        | ExactType::Vec3
        | ExactType::Vec4
        | ExactType::Quat => exact.fixed_len(),
    }
}

fn slots_of(mask: u64) -> impl Iterator<Item = Slot> {
    (0..64).map(Slot).filter(move |slot| mask & slot.bit() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(phalanx_macros::Exact, Clone, Debug, Default, PartialEq)]
    enum Order {
        #[default]
        None,
        Walk(i16, i16),
        Build(Option<u8>),
    }

    #[test]
    fn inputs_of_any_length_within_the_type_round_trip() {
        let size = bytes_max(&Order::exact_type()).unwrap();
        assert_eq!(size, 5);
        for order in [Order::None, Order::Walk(-3, 9), Order::Build(Some(1))] {
            let bytes = encode(&order, size);
            assert_eq!(bytes.len(), size);
            assert_eq!(decode::<Order>(&bytes), order);
        }
    }

    #[test]
    fn bytes_that_are_no_input_are_the_default() {
        assert_eq!(decode::<Order>(&[9, 0, 0, 0, 0]), Order::None);
        assert_eq!(decode::<Order>(&[0, 0, 0, 0, 1]), Order::None);
        assert_eq!(decode::<Order>(&[2, 7, 0, 0, 0]), Order::None);
        assert_eq!(decode::<Order>(&[]), Order::None);
    }

    #[test]
    fn presence_changes_are_seen_once() {
        let mut inputs = Inputs::<u8>::default();
        let mut frame = InputFrame::empty(Tick::new(1), 3, 1);
        frame.set(Slot(2), &[7]);
        inputs.load(&frame, 0b001, frame.present());
        assert!(inputs.joined().eq([Slot(2)]));
        assert!(inputs.left().eq([Slot(0)]));
        assert!(inputs.iter().eq([(Slot(2), &7)]));
        inputs.load(&frame, frame.present(), frame.present());
        assert!(inputs.joined().chain(inputs.left()).next().is_none());
        // A client assumes that those of whom it knows nothing do nothing.
        inputs.load(&frame, 0b101, 0b101);
        assert!(inputs.iter().eq([(Slot(0), &0), (Slot(2), &7)]));
    }
}
