//! Derive macros of Phalanx: `Exact` and `Networked`.
//!
//! The generated code names the traits by `::phalanx::netcode`, so that games depend on `phalanx`
//! alone.

mod exact;
mod networked;
mod wire;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `Exact`: the value has exactly one byte form, that of its fields in source order.
///
/// Works for structs, tuple structs, unit structs and enums. An enum's variant is one byte, its
/// tag: the number of the variant in the source, or what `#[exact(tag = 3)]` on it says.
/// Discriminants (`A = 5`) play no role. Generic and recursive types are refused.
///
/// Fields may declare a wire form, as with `Networked`; it holds wherever the type is part of a
/// component or resource.
#[proc_macro_derive(Exact, attributes(exact, networked))]
pub fn derive_exact(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    exact::expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Implements `Networked`, and `Exact` with it: a component or resource of the schema.
///
/// `#[networked(name = "Health", version = 2, visibility = HostOnly)]` on the type says otherwise
/// than the defaults: the type's name, version 1, `Client`.
///
/// # Wire forms
/// In lockstep everyone computes the exact state. In state-sync mode clients get values that are
/// as exact as the game needs: `#[networked(…)]` on a field says how. Without it a value travels
/// without loss.
///
/// | option | for | bits, effect |
/// |---|---|---|
/// | `range(-32..=32), per_unit = 512` | f32, f64, Vec2, Vec3, Vec4 | steps of 1/512 from -32 to 32: 16 bits per number |
/// | `range(0..=100)` | integers | 7 bits |
/// | `varint` | integers | without bounds; small numbers are cheap |
/// | `half` | f32, f64, vectors, Quat | 16 bits per number |
/// | `unit = 10` | Vec2, Vec3 | a direction: an angle of 10 bits, or 10 bits for each axis of an octahedron; the length is lost |
/// | `rotation = 9` | Quat | the three smallest parts with 9 bits each, and 2 bits |
/// | `predict = "last"` | any | the codec expects the value to stay, not to go on as it moved |
/// | `position` | Vec2, Vec3, arrays of 2 or 3 numbers | where the entity is: for interest and for what is near. One field of the type |
/// | `interpolate = "linear"`, `"spherical"`, `"step"` | any; also on the type, for all fields | how it is shown between two snapshots |
///
/// A form also holds for the parts of arrays, options, and of structs whose fields declare none.
/// A value beyond its bounds is clamped and counted, never wrapped. All but `interpolate` are part
/// of the schema hash: builds that differ in them do not play together.
///
/// ```ignore
/// #[derive(Component, Networked, Clone)]
/// struct Ship {
///     #[networked(range(-2048..=2048), per_unit = 64, position)]
///     at: Vec2,
///     #[networked(rotation = 9, interpolate = "spherical")]
///     facing: Quat,
///     #[networked(range(0..=100))]
///     hull: u16,
/// }
/// ```
#[proc_macro_derive(Networked, attributes(networked, exact))]
pub fn derive_networked(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    networked::expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
