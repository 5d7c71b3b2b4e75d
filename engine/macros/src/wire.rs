//! What `#[networked(…)]` on a field declares for state-sync clients.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{Attribute, Error, LitInt, LitStr, Result, Token, Type};

/// The options of one field.
#[derive(Default)]
pub(crate) struct Wire {
    range: Option<(i64, i64)>,
    per_unit: Option<u32>,
    form: Option<Form>,
    is_last: bool,
    is_position: bool,
    interpolation: Option<&'static str>,
    /// Where the first option stands.
    span: Option<Span>,
}

/// A form that is named by one option.
enum Form {
    Varint,
    Half,
    Unit(u8),
    Rotation(u8),
}

/// What may stand in `#[networked(…)]` on a field.
const OPTIONS: &str = "expected `range(MIN..=MAX)`, `per_unit = STEPS`, `varint`, `half`, \
                       `unit = BITS`, `rotation = BITS`, `predict = \"last\"`, `position` or \
                       `interpolate = \"linear\"`";

impl Wire {
    /// What the attributes of a field of type `ty` say.
    pub(crate) fn parse(attributes: &[Attribute], ty: &Type) -> Result<Self> {
        let mut wire = Self::default();
        for attribute in attributes {
            if attribute.path().is_ident("networked") {
                wire.span.get_or_insert_with(|| attribute.span());
                attribute.parse_nested_meta(|meta| wire.option(&meta))?;
            }
        }
        wire.check(ty)?;
        Ok(wire)
    }

    fn option(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let once = |is_there: bool| {
            if is_there {
                Err(meta.error("the option is given twice"))
            } else {
                Ok(())
            }
        };
        let is = |name: &str| meta.path.is_ident(name);
        if is("range") {
            once(self.range.is_some())?;
            let content;
            syn::parenthesized!(content in meta.input);
            self.range = Some(parse_range(&content)?);
        } else if is("per_unit") {
            once(self.per_unit.is_some())?;
            let steps: LitInt = meta.value()?.parse()?;
            let per_unit = steps.base10_parse()?;
            if per_unit == 0 {
                return Err(Error::new_spanned(
                    steps,
                    "there is at least one step per unit",
                ));
            }
            self.per_unit = Some(per_unit);
        } else if is("varint") {
            self.set_form(meta, Form::Varint)?;
        } else if is("half") {
            self.set_form(meta, Form::Half)?;
        } else if is("unit") {
            let bits = parse_bits(meta, 4, 16)?;
            self.set_form(meta, Form::Unit(bits))?;
        } else if is("rotation") {
            let bits = parse_bits(meta, 5, 15)?;
            self.set_form(meta, Form::Rotation(bits))?;
        } else if is("predict") {
            once(self.is_last)?;
            let how: LitStr = meta.value()?.parse()?;
            if how.value() != "last" {
                return Err(Error::new_spanned(
                    how,
                    "expected \"last\"; without it the course is predicted",
                ));
            }
            self.is_last = true;
        } else if is("position") {
            once(self.is_position)?;
            self.is_position = true;
        } else if is("interpolate") {
            once(self.interpolation.is_some())?;
            self.interpolation = Some(parse_interpolation(meta)?);
        } else {
            return Err(meta.error(OPTIONS));
        }
        Ok(())
    }

    fn set_form(&mut self, meta: &ParseNestedMeta<'_>, form: Form) -> Result<()> {
        if self.form.is_some() {
            return Err(meta.error("a field has one wire form"));
        }
        self.form = Some(form);
        Ok(())
    }

    /// Refuses what no type can have, and what this one, if it is known by its name, cannot. Other
    /// types are checked when the schema is built.
    fn check(&self, ty: &Type) -> Result<()> {
        let Some(span) = self.span else {
            return Ok(());
        };
        let error = |text: &str| Err(Error::new(span, text));
        if self.form.is_some() && (self.range.is_some() || self.per_unit.is_some()) {
            return error("a field has one wire form: a range, or another one");
        }
        if self.per_unit.is_some() && self.range.is_none() {
            return error("`per_unit` needs a `range(MIN..=MAX)` of whole units");
        }
        if let (Some((min, max)), Some(_)) = (self.range, self.per_unit)
            && (i32::try_from(min).is_err() || i32::try_from(max).is_err() || min == max)
        {
            return error("a range of units is not empty and fits 32 bits");
        }
        let Some(class) = class_of(ty) else {
            return Ok(());
        };
        let is_integer = matches!(class, Class::Integer { .. });
        let has_floats = matches!(
            class,
            Class::Float | Class::Vec2 | Class::Vec3 | Class::Vec4
        );
        if let (Some((min, max)), None) = (self.range, self.per_unit) {
            let Class::Integer {
                min: least,
                max: greatest,
            } = class
            else {
                return error("a range of a float needs `per_unit`; other types have no range");
            };
            if i128::from(min) < least || i128::from(max) > greatest {
                return error("the range reaches beyond the field's type");
            }
            if i128::from(max) - i128::from(min) > i128::from(u32::MAX) {
                return error("a range has at most 2^32 values");
            }
        }
        if self.per_unit.is_some() && !has_floats {
            return error("steps per unit are for floats and vectors of them");
        }
        match &self.form {
            Some(Form::Varint) if !is_integer => error("`varint` is for integers"),
            Some(Form::Half) if !has_floats && !matches!(class, Class::Quat) => {
                error("`half` is for floats and vectors of them")
            }
            Some(Form::Unit(_)) if !matches!(class, Class::Vec2 | Class::Vec3) => {
                error("`unit` is for directions: Vec2 and Vec3")
            }
            Some(Form::Rotation(_)) if !matches!(class, Class::Quat) => {
                error("`rotation` is for rotations: Quat")
            }
            _ if self.is_position && !matches!(class, Class::Vec2 | Class::Vec3) => {
                error("a position is a Vec2, a Vec3 or an array of 2 or 3 numbers")
            }
            _ => Ok(()),
        }
    }

    /// The calls that give a `FieldSchema` what is declared. `shown` is what the type says for all
    /// fields.
    pub(crate) fn calls(&self, shown: Option<&'static str>) -> TokenStream {
        let mut calls = TokenStream::new();
        let form = match (&self.form, self.range, self.per_unit) {
            (Some(Form::Varint), ..) => Some(quote! { Varint }),
            (Some(Form::Half), ..) => Some(quote! { Half }),
            (Some(Form::Unit(bits)), ..) => Some(quote! { Unit { bits: #bits } }),
            (Some(Form::Rotation(bits)), ..) => Some(quote! { Rotation { bits: #bits } }),
            (None, Some((min, max)), Some(per_unit)) => {
                // The check refuses other bounds.
                let [min, max] = [min, max].map(|bound| i32::try_from(bound).unwrap_or_default());
                Some(quote! { Fixed { min: #min, max: #max, per_unit: #per_unit } })
            }
            (None, Some((min, max)), None) => Some(quote! { Range { min: #min, max: #max } }),
            (None, None, _) => None,
        };
        if let Some(form) = form {
            calls.extend(quote! { .wire(::phalanx::netcode::state::WireForm::#form) });
        }
        if self.is_last {
            calls.extend(quote! {
                .predicted(::phalanx::netcode::state::Prediction::Last)
            });
        }
        if self.is_position {
            calls.extend(quote! { .position() });
        }
        if let Some(how) = self.interpolation.or(shown) {
            calls.extend(interpolated(how));
        }
        calls
    }
}

/// `.interpolated(…)` with this variant.
fn interpolated(how: &str) -> TokenStream {
    let how = syn::Ident::new(how, Span::call_site());
    quote! { .interpolated(::phalanx::netcode::state::Interpolation::#how) }
}

/// The variant of `Interpolation` that `interpolate = "…"` names.
pub(crate) fn parse_interpolation(meta: &ParseNestedMeta<'_>) -> Result<&'static str> {
    let how: LitStr = meta.value()?.parse()?;
    match how.value().as_str() {
        "linear" => Ok("Linear"),
        "spherical" => Ok("Spherical"),
        "step" => Ok("Step"),
        _ => Err(Error::new_spanned(
            how,
            "expected \"linear\", \"spherical\" or \"step\"",
        )),
    }
}

fn parse_bits(meta: &ParseNestedMeta<'_>, min: u8, max: u8) -> Result<u8> {
    let bits: LitInt = meta.value()?.parse()?;
    match bits.base10_parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Error::new_spanned(
            bits,
            format!("expected {min} to {max} bits"),
        )),
    }
}

/// The bounds of `MIN..=MAX`.
fn parse_range(range: ParseStream<'_>) -> Result<(i64, i64)> {
    let min = parse_number(range)?;
    if !range.peek(Token![..=]) {
        return Err(range.error("expected a range of whole numbers: MIN..=MAX"));
    }
    range.parse::<Token![..=]>()?;
    let max = parse_number(range)?;
    if !range.is_empty() {
        return Err(range.error("expected nothing behind the range"));
    }
    if min > max {
        return Err(range.error("the range is empty"));
    }
    Ok((min, max))
}

/// A whole number, maybe with a minus sign.
fn parse_number(input: ParseStream<'_>) -> Result<i64> {
    let sign = if input.peek(Token![-]) {
        input.parse::<Token![-]>()?;
        "-"
    } else {
        ""
    };
    if !input.peek(LitInt) {
        return Err(input.error("expected a whole number"));
    }
    let digits: LitInt = input.parse()?;
    format!("{sign}{}", digits.base10_digits())
        .parse()
        .map_err(|_too_large| Error::new_spanned(digits, "the number exceeds 64 bits"))
}

/// What the macro knows of a type by its name.
enum Class {
    Integer {
        min: i128,
        max: i128,
    },
    Float,
    Vec2,
    Vec3,
    Vec4,
    Quat,
    /// What travels as it is: bool, NetId, lists, texts.
    Other,
}

/// The class of a type whose last path segment is a well-known name. `None` for types that only
/// the schema knows.
fn class_of(ty: &Type) -> Option<Class> {
    // An array of numbers may be a position: the schema decides.
    let Type::Path(path) = ty else {
        return None;
    };
    let integer = |bits: u32, is_signed: bool| {
        let bits = if is_signed { bits - 1 } else { bits };
        Some(Class::Integer {
            min: if is_signed { -(1_i128 << bits) } else { 0 },
            max: (1_i128 << bits) - 1,
        })
    };
    match path.path.segments.last()?.ident.to_string().as_str() {
        "u8" => integer(8, false),
        "u16" => integer(16, false),
        "u32" => integer(32, false),
        "u64" => integer(64, false),
        "i8" => integer(8, true),
        "i16" => integer(16, true),
        "i32" => integer(32, true),
        "i64" => integer(64, true),
        "f32" | "f64" => Some(Class::Float),
        "Vec2" => Some(Class::Vec2),
        "Vec3" => Some(Class::Vec3),
        "Vec4" => Some(Class::Vec4),
        "Quat" => Some(Class::Quat),
        "bool" | "NetId" | "String" | "Vec" | "BTreeMap" | "BTreeSet" => Some(Class::Other),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use syn::Field;
    use syn::parse::Parser;

    use super::*;

    /// A field with a name.
    macro_rules! field {
        ($($tokens:tt)*) => {
            Field::parse_named.parse2(quote! { $($tokens)* }).unwrap()
        };
    }

    fn calls(field: &Field) -> Result<String> {
        let wire = Wire::parse(&field.attrs, &field.ty)?;
        Ok(wire.calls(None).to_string().replace(' ', ""))
    }

    #[track_caller]
    fn accepts(field: &Field, expected: &str) {
        let expected = expected
            .replace("W::", "::phalanx::netcode::state::WireForm::")
            .replace(' ', "");
        assert_eq!(calls(field).unwrap(), expected);
    }

    #[track_caller]
    fn refuses(field: &Field, expected: &str) {
        let message = calls(field).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn options_become_calls() {
        accepts(&field! { a: u8 }, "");
        accepts(
            &field! { #[networked(range(-32..=32), per_unit = 512, position)] a: Vec2 },
            ".wire(W::Fixed { min: -32i32, max: 32i32, per_unit: 512u32 }).position()",
        );
        accepts(
            &field! { #[networked(range(0..=1_00))] a: u16 },
            ".wire(W::Range { min: 0i64, max: 100i64 })",
        );
        accepts(
            &field! { #[networked(range(-9223372036854775808..=-9223372036854775807))] a: i64 },
            ".wire(W::Range { min: -9223372036854775808i64, max: -9223372036854775807i64 })",
        );
        accepts(&field! { #[networked(varint)] a: u64 }, ".wire(W::Varint)");
        accepts(&field! { #[networked(half)] a: Own }, ".wire(W::Half)");
        accepts(
            &field! { #[networked(unit = 10)] a: math::Vec3 },
            ".wire(W::Unit { bits: 10u8 })",
        );
        accepts(
            &field! { #[networked(rotation = 9)] #[networked(interpolate = "linear")] a: Quat },
            ".wire(W::Rotation { bits: 9u8 })\
             .interpolated(::phalanx::netcode::state::Interpolation::Linear)",
        );
        accepts(
            &field! { #[networked(predict = "last")] a: f32 },
            ".predicted(::phalanx::netcode::state::Prediction::Last)",
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        refuses(
            &field! { #[networked(ranged(0..=1))] a: u8 },
            "expected `range",
        );
        refuses(&field! { #[networked(range(0..1))] a: u8 }, "MIN..=MAX");
        refuses(&field! { #[networked(range(5..=1))] a: u8 }, "empty");
        refuses(&field! { #[networked(range(0..=x))] a: u8 }, "whole number");
        refuses(
            &field! { #[networked(range(0..=99999999999999999999))] a: u64 },
            "64 bits",
        );
        refuses(&field! { #[networked(range(0..=256))] a: u8 }, "beyond");
        refuses(&field! { #[networked(range(-1..=6))] a: u64 }, "beyond");
        refuses(
            &field! { #[networked(range(0..=4294967296))] a: u64 },
            "2^32",
        );
        refuses(&field! { #[networked(range(0..=5))] a: f32 }, "per_unit");
        refuses(
            &field! { #[networked(range(0..=5), per_unit = 2)] a: u8 },
            "floats",
        );
        refuses(
            &field! { #[networked(range(5..=5), per_unit = 2)] a: f32 },
            "empty",
        );
        refuses(
            &field! { #[networked(range(0..=5), per_unit = 0)] a: f32 },
            "one step",
        );
        refuses(
            &field! { #[networked(per_unit = 2)] a: f32 },
            "needs a `range",
        );
        refuses(
            &field! { #[networked(half, varint)] a: f32 },
            "one wire form",
        );
        refuses(
            &field! { #[networked(half, range(0..=1))] a: f32 },
            "one wire form",
        );
        refuses(
            &field! { #[networked(range(0..=1), range(0..=1))] a: u8 },
            "twice",
        );
        refuses(&field! { #[networked(varint)] a: bool }, "integers");
        refuses(&field! { #[networked(half)] a: u8 }, "floats");
        refuses(&field! { #[networked(unit = 3)] a: Vec2 }, "4 to 16");
        refuses(&field! { #[networked(unit = 8)] a: f32 }, "Vec2 and Vec3");
        refuses(&field! { #[networked(rotation = 16)] a: Quat }, "5 to 15");
        refuses(&field! { #[networked(rotation = 9)] a: Vec3 }, "Quat");
        refuses(&field! { #[networked(position)] a: f32 }, "position");
        refuses(&field! { #[networked(predict = "course")] a: f32 }, "last");
        refuses(
            &field! { #[networked(interpolate = "cubic")] a: f32 },
            "spherical",
        );
    }
}
