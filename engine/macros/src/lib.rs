//! Derive macros of Phalanx: `Exact` and `Networked`.
//!
//! The generated code names the traits by `::phalanx::netcode`, so that games depend on `phalanx`
//! alone.

mod exact;
mod networked;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `Exact`: the value has exactly one byte form, that of its fields in source order.
///
/// Works for structs, tuple structs, unit structs and enums. An enum's variant is one byte, its
/// tag: the number of the variant in the source, or what `#[exact(tag = 3)]` on it says.
/// Discriminants (`A = 5`) play no role. Generic and recursive types are refused.
#[proc_macro_derive(Exact, attributes(exact))]
pub fn derive_exact(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    exact::expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Implements `Networked`, and `Exact` with it: a component or resource of the schema.
///
/// `#[networked(name = "Health", version = 2, visibility = HostOnly)]` says otherwise than the
/// defaults: the type's name, version 1, `Client`.
#[proc_macro_derive(Networked, attributes(networked, exact))]
pub fn derive_networked(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    networked::expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
