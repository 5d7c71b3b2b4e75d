//! Control points.

use phalanx::prelude::*;

use super::all_slots;
use crate::arena::field::Field;
use crate::arena::{Armies, ControlPoint, Position};

/// Metres around a point that count.
const RADIUS_M: f32 = 8.0;
/// Ticks for which an army must outnumber all others to take a point.
const CAPTURE_TICKS: u16 = 90;
/// Every so many ticks a held point brings its holder one.
const SCORE_TICKS: u32 = 30;

/// Armies that outnumber all others around a point take it; held points bring score.
pub(super) fn capture(
    tick: Res<CurrentTick>,
    field: Res<Field>,
    mut armies: ResMut<Armies>,
    mut points: Query<(&mut ControlPoint, &Position)>,
) {
    let mut counts = vec![0_u32; armies.0.len()];
    for (mut point, position) in &mut points {
        counts.fill(0);
        for seen in field.around(position.0, RADIUS_M) {
            if seen.position.distance_squared(position.0) < RADIUS_M * RADIUS_M
                && let Some(count) = counts.get_mut(seen.slot.index())
            {
                *count += 1;
            }
        }
        let claimant = majority(&counts);
        let next = match claimant {
            Some(slot) if point.holder == Some(slot) => ControlPoint {
                holder: point.holder,
                ..ControlPoint::default()
            },
            Some(slot) if point.claimant == Some(slot) => {
                let progress = point.progress.saturating_add(1);
                if progress >= CAPTURE_TICKS {
                    ControlPoint {
                        holder: claimant,
                        ..ControlPoint::default()
                    }
                } else {
                    ControlPoint { progress, ..*point }
                }
            }
            Some(_) => ControlPoint {
                claimant,
                progress: 1,
                ..*point
            },
            None => ControlPoint {
                holder: point.holder,
                ..ControlPoint::default()
            },
        };
        *point = next;
        if tick.0.number().is_multiple_of(SCORE_TICKS)
            && let Some(holder) = point.holder
            && let Some(army) = armies.of_mut(holder)
        {
            army.score = army.score.saturating_add(1);
        }
    }
}

/// Who outnumbers all others together.
fn majority(counts: &[u32]) -> Option<Slot> {
    // Each of them counts entities, of which there are far fewer than 2^31.
    let total: u32 = counts.iter().sum();
    all_slots()
        .zip(counts)
        .find(|&(_, &count)| count * 2 > total)
        .map(|(slot, _)| slot)
}
