//! Expansion of `#[derive(Networked)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Ident, LitInt, LitStr, Result};

use crate::exact;
use crate::wire::parse_interpolation;

/// Bytes of a kind's name; the schema refuses longer ones, and an error here names the line.
const NAME_BYTES_MAX: usize = 64;

/// The implementations of `Exact` and `Networked` for `input`.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let exact = exact::expand(input)?;
    let Attributes {
        name,
        version,
        visibility,
        shown,
    } = parse_attributes(input)?;
    let fields = exact::kind_fields(input, shown)?;
    let ident = &input.ident;
    Ok(quote! {
        #exact

        #[automatically_derived]
        impl ::phalanx::netcode::state::Networked for #ident {
            const NAME: &'static str = #name;
            const VERSION: u16 = #version;
            const VISIBILITY: ::phalanx::netcode::state::Visibility =
                ::phalanx::netcode::state::Visibility::#visibility;

            fn fields() -> ::std::vec::Vec<::phalanx::netcode::state::FieldSchema> {
                #fields
            }
        }
    })
}

/// What `#[networked(…)]` says, with the defaults.
struct Attributes {
    name: String,
    version: u16,
    visibility: Ident,
    /// How fields are shown between snapshots.
    shown: Option<&'static str>,
}

fn parse_attributes(input: &DeriveInput) -> Result<Attributes> {
    let mut found = Attributes {
        name: exact::plain_name(&input.ident),
        version: 1,
        visibility: Ident::new("Client", input.ident.span()),
        shown: None,
    };
    for attribute in &input.attrs {
        if !attribute.path().is_ident("networked") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                let name: LitStr = meta.value()?.parse()?;
                found.name = name.value();
                if found.name.is_empty()
                    || found.name.len() > NAME_BYTES_MAX
                    || found.name.chars().any(char::is_control)
                {
                    return Err(meta.error("a name has 1 to 64 bytes and no control characters"));
                }
            } else if meta.path.is_ident("version") {
                found.version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
            } else if meta.path.is_ident("visibility") {
                let visibility: Ident = meta.value()?.parse()?;
                let known = ["Client", "HostOnly", "Derived", "Local"];
                if known.iter().all(|known| visibility != known) {
                    return Err(meta.error("expected Client, HostOnly, Derived or Local"));
                }
                found.visibility = visibility;
            } else if meta.path.is_ident("interpolate") {
                found.shown = Some(parse_interpolation(&meta)?);
            } else {
                return Err(meta.error(
                    "expected `name`, `version`, `visibility` or `interpolate`; \
                     wire forms stand on fields",
                ));
            }
            Ok(())
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn attributes_have_defaults() {
        let found = parse_attributes(&parse_quote! { struct r#Health(u16); }).unwrap();
        assert_eq!(found.name, "Health");
        assert_eq!(found.version, 1);
        assert_eq!(found.visibility, "Client");
        let found = parse_attributes(&parse_quote! {
            #[networked(name = "hp", version = 7)]
            #[networked(visibility = Local)]
            struct Health(u16);
        })
        .unwrap();
        assert_eq!(found.name, "hp");
        assert_eq!(found.version, 7);
        assert_eq!(found.visibility, "Local");
    }

    #[test]
    fn unknown_attributes_are_refused() {
        let error = |input: DeriveInput| match parse_attributes(&input) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        };
        let message = error(parse_quote! { #[networked(visibility = Public)] struct A; });
        assert!(message.contains("Derived"), "{message}");
        let message = error(parse_quote! { #[networked(nam = "x")] struct A; });
        assert!(message.contains("expected `name`"), "{message}");
        let message = error(parse_quote! { #[networked(name = "")] struct A; });
        assert!(message.contains("1 to 64 bytes"), "{message}");
        let message = error(parse_quote! { #[networked(version = 65536)] struct A; });
        assert!(!message.is_empty());
    }
}
