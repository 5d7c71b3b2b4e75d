//! Mixing two rows of a kind, field by field as each declares.

use crate::state::{ExactType, FieldSchema, Interpolation, KindSchema, WireForm};

/// How the rows of a kind, in their exact form, are mixed: what lies behind the first value of
/// varying length, and what is no float, stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blend {
    parts: Vec<Part>,
}

/// Numbers of a row that are shown between two values: 32-bit floats that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floats {
    /// Where the first one's bytes begin.
    pub at: usize,
    /// How many there are, at most 4.
    pub count: usize,
    /// Whether they are a rotation, whose length is 1 and whose two signs mean the same.
    pub is_rotation: bool,
}

/// Floats of a row that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// First byte.
    at: usize,
    count: usize,
    mix: Mix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    /// Part by part.
    Linear,
    /// The same for 64-bit floats.
    Linear64,
    /// A direction, or a vector by direction and length.
    Arc,
    /// A rotation along the shortest arc.
    Rotation,
    /// A rotation part by part, brought to length 1.
    RotationLinear,
}

impl Blend {
    /// What the fields of `kind` declare.
    #[must_use]
    pub fn new(kind: &KindSchema) -> Self {
        let mut parts = Vec::new();
        let _end = collect(&kind.fields, 0, &mut parts);
        Self { parts }
    }

    /// Whether nothing is mixed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The 32-bit floats that are mixed, in the order of their bytes.
    pub fn floats(&self) -> impl Iterator<Item = Floats> {
        let parts = self.parts.iter();
        let parts = parts.filter(|part| part.mix != Mix::Linear64);
        parts.map(|part| Floats {
            at: part.at,
            count: part.count,
            is_rotation: matches!(part.mix, Mix::Rotation | Mix::RotationLinear),
        })
    }

    /// Brings `row` the part `by` (0 to 1) of the way towards `next`. What is shorter than a row of
    /// the kind, or would come out infinite, stays as it is.
    pub fn mix(&self, row: &mut [u8], next: &[u8], by: f32) {
        for part in &self.parts {
            part.mix(row, next, by);
        }
    }
}

impl Part {
    fn mix(self, row: &mut [u8], next: &[u8], by: f32) {
        if self.mix == Mix::Linear64 {
            if let (Some(from), Some(to)) = (double(row, self.at), double(next, self.at)) {
                let mixed = from + (to - from) * f64::from(by);
                if mixed.is_finite() {
                    row[self.at..self.at + 8].copy_from_slice(&mixed.to_le_bytes());
                }
            }
            return;
        }
        let (Some(from), Some(to)) = (self.floats(row), self.floats(next)) else {
            return;
        };
        let mixed = match self.mix {
            Mix::Linear | Mix::Linear64 => linear(from, to, by),
            Mix::Arc => arc(from, to, by),
            Mix::Rotation => rotation(from, to, by, true),
            Mix::RotationLinear => rotation(from, to, by, false),
        };
        if mixed.iter().all(|float| float.is_finite()) {
            for (place, float) in mixed[..self.count].iter().enumerate() {
                let at = self.at + place * 4;
                row[at..at + 4].copy_from_slice(&float.to_le_bytes());
            }
        }
    }

    /// The floats of `row`, and zeros up to four.
    fn floats(self, row: &[u8]) -> Option<[f32; 4]> {
        let bytes = row.get(self.at..self.at + self.count * 4)?;
        let mut floats = [0.0; 4];
        for (float, bytes) in floats.iter_mut().zip(bytes.chunks_exact(4)) {
            *float = f32::from_le_bytes(bytes.try_into().ok()?);
        }
        Some(floats)
    }
}

fn double(row: &[u8], at: usize) -> Option<f64> {
    let bytes = row.get(at..at + 8)?;
    Some(f64::from_le_bytes(bytes.try_into().ok()?))
}

fn linear(from: [f32; 4], to: [f32; 4], by: f32) -> [f32; 4] {
    core::array::from_fn(|place| from[place] + (to[place] - from[place]) * by)
}

fn dot(a: [f32; 4], b: [f32; 4]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(of: [f32; 4]) -> f32 {
    libm::sqrtf(dot(of, of))
}

fn scaled(of: [f32; 4], by: f32) -> [f32; 4] {
    of.map(|part| part * by)
}

/// Below this an angle's sine is no divisor.
const SMALL: f32 = 1e-4;

/// Weights of two vectors of length 1 on the arc between them, whose cosine is `cos`.
fn weights(cos: f32, by: f32) -> (f32, f32) {
    let angle = libm::acosf(cos.clamp(-1.0, 1.0));
    let sin = libm::sinf(angle);
    if sin < SMALL {
        return (1.0 - by, by);
    }
    (
        libm::sinf(angle * (1.0 - by)) / sin,
        libm::sinf(angle * by) / sin,
    )
}

fn arc(from: [f32; 4], to: [f32; 4], by: f32) -> [f32; 4] {
    let (from_length, to_length) = (length(from), length(to));
    if from_length < SMALL || to_length < SMALL {
        return linear(from, to, by);
    }
    let (a, b) = (scaled(from, 1.0 / from_length), scaled(to, 1.0 / to_length));
    let (of_a, of_b) = weights(dot(a, b), by);
    let direction: [f32; 4] = core::array::from_fn(|place| a[place] * of_a + b[place] * of_b);
    let norm = length(direction);
    if norm < SMALL {
        // Opposite directions: there is no shortest arc.
        return linear(from, to, by);
    }
    scaled(
        direction,
        (from_length + (to_length - from_length) * by) / norm,
    )
}

fn rotation(from: [f32; 4], to: [f32; 4], by: f32, along_arc: bool) -> [f32; 4] {
    // Both signs of a rotation mean the same; the nearer one counts.
    let cos = dot(from, to);
    let to = if cos < 0.0 { scaled(to, -1.0) } else { to };
    let (of_from, of_to) = if along_arc {
        weights(cos.abs(), by)
    } else {
        (1.0 - by, by)
    };
    let mixed: [f32; 4] = core::array::from_fn(|place| from[place] * of_from + to[place] * of_to);
    let norm = length(mixed);
    if norm < SMALL {
        return from;
    }
    scaled(mixed, 1.0 / norm)
}

/// Collects what is mixed of `fields`, which start at byte `at`, and returns where they end; `None`
/// behind a value of varying length.
fn collect(fields: &[FieldSchema], mut at: usize, parts: &mut Vec<Part>) -> Option<usize> {
    for field in fields {
        if field.interpolation != Interpolation::Step {
            collect_type(field, &field.exact, at, parts);
        }
        at += field.exact.fixed_len()?;
    }
    Some(at)
}

fn collect_type(field: &FieldSchema, exact: &ExactType, at: usize, parts: &mut Vec<Part>) {
    let is_direction = match field.interpolation {
        Interpolation::Spherical => true,
        Interpolation::Natural => matches!(field.wire, WireForm::Unit { .. }),
        Interpolation::Linear | Interpolation::Step => false,
    };
    let vector = if is_direction { Mix::Arc } else { Mix::Linear };
    let mut part = |count, mix| parts.push(Part { at, count, mix });
    match exact {
        ExactType::F32 => part(1, Mix::Linear),
        ExactType::F64 => part(1, Mix::Linear64),
        ExactType::Vec2 => part(2, vector),
        ExactType::Vec3 => part(3, vector),
        ExactType::Vec4 => part(4, vector),
        ExactType::Quat if field.interpolation == Interpolation::Linear => {
            part(4, Mix::RotationLinear);
        }
        ExactType::Quat => part(4, Mix::Rotation),
        ExactType::Struct(fields) => {
            let _end = collect(fields, at, parts);
        }
        ExactType::Array(element, count) => {
            if let Some(len) = element.fixed_len() {
                for number in 0..usize::from(*count) {
                    collect_type(field, element, at + number * len, parts);
                }
            }
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
        | ExactType::NetId
        | ExactType::Option(_)
        | ExactType::List(_)
        | ExactType::Text
        | ExactType::Enum(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{KindShape, Visibility};

    fn blend(fields: Vec<FieldSchema>) -> Blend {
        Blend::new(&KindSchema {
            name: "K".to_owned(),
            version: 1,
            shape: KindShape::Component,
            visibility: Visibility::Client,
            fields,
        })
    }

    fn row(floats: &[f32]) -> Vec<u8> {
        floats
            .iter()
            .flat_map(|float| float.to_le_bytes())
            .collect()
    }

    fn mixed(exact: ExactType, policy: Interpolation, from: &[f32], to: &[f32]) -> Vec<f32> {
        let field = FieldSchema::new("0", exact).interpolated(policy);
        let mut mixed = row(from);
        blend(vec![field]).mix(&mut mixed, &row(to), 0.25);
        mixed
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }

    fn assert_near(found: &[f32], expected: &[f32]) {
        let far = found
            .iter()
            .zip(expected)
            .find(|(a, b)| (*a - *b).abs() > 1e-5);
        assert!(far.is_none() && found.len() == expected.len(), "{found:?}");
    }

    #[test]
    fn each_policy_mixes_in_its_way() {
        use Interpolation::{Linear, Natural, Spherical, Step};
        let (from, to) = ([4.0, 0.0], [0.0, 8.0]);
        let linear = mixed(ExactType::Vec2, Natural, &from, &to);
        assert_near(&linear, &[3.0, 2.0]);
        let angle = core::f32::consts::FRAC_PI_8;
        let arc = mixed(ExactType::Vec2, Spherical, &from, &to);
        assert_near(&arc, &[5.0 * libm::cosf(angle), 5.0 * libm::sinf(angle)]);
        assert_near(&mixed(ExactType::Vec2, Step, &from, &to), &from);
        assert_near(&mixed(ExactType::F32, Linear, &[1.0], &[3.0]), &[1.5]);
        // A quarter turn around z, given with the other sign.
        let half = core::f32::consts::FRAC_PI_4;
        let (still, turned) = (
            [0.0, 0.0, 0.0, 1.0],
            [0.0, 0.0, -libm::sinf(half), -libm::cosf(half)],
        );
        let quarter = half / 4.0;
        let expected = [0.0, 0.0, libm::sinf(quarter), libm::cosf(quarter)];
        assert_near(&mixed(ExactType::Quat, Natural, &still, &turned), &expected);
        let near = mixed(ExactType::Quat, Linear, &still, &turned);
        assert!((near.iter().map(|part| part * part).sum::<f32>() - 1.0).abs() < 1e-5);
        assert!((near[2] - expected[2]).abs() < 0.02);
    }

    #[test]
    fn fields_are_found_where_they_lie_and_others_stay() {
        let fields = vec![
            FieldSchema::new("flag", ExactType::Bool),
            FieldSchema::new(
                "inner",
                ExactType::Struct(vec![
                    FieldSchema::new("id", ExactType::U16),
                    FieldSchema::new("x", ExactType::F64),
                ]),
            ),
            FieldSchema::new("names", ExactType::List(Box::new(ExactType::Text))),
            FieldSchema::new("late", ExactType::F32),
        ];
        let blend = blend(fields);
        let bytes = |flag: u8, id: u16, x: f64, late: f32| {
            let mut bytes = vec![flag];
            bytes.extend(id.to_le_bytes());
            bytes.extend(x.to_le_bytes());
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend(late.to_le_bytes());
            bytes
        };
        let mut mixed = bytes(0, 7, 10.0, 1.0);
        blend.mix(&mut mixed, &bytes(1, 9, 20.0, 2.0), 0.5);
        assert_eq!(mixed, bytes(0, 7, 15.0, 1.0));
        // Rows of another length are left alone.
        blend.mix(&mut mixed, &[1, 2], 0.5);
        assert_eq!(mixed, bytes(0, 7, 15.0, 1.0));
    }
}
