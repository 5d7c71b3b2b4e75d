//! Expansion of `#[derive(Exact)]`.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Error, Fields, LitInt, Member, Result, Type};

use crate::wire::Wire;

/// The implementation of `Exact` for `input`.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "a generic type has no single exact form; derive for a type without parameters",
        ));
    }
    let body = match &input.data {
        Data::Struct(data) => {
            let fields = parse_fields(&input.ident, &data.fields)?;
            refuse_exact_attributes(&input.attrs)?;
            struct_body(&fields)
        }
        Data::Enum(_) => enum_body(&input.ident, &parse_variants(input)?),
        Data::Union(_) => {
            return Err(Error::new_spanned(
                &input.ident,
                "a union has no exact form; use an enum",
            ));
        }
    };
    let name = &input.ident;
    let Body {
        exact_type,
        write,
        read,
        hash,
    } = body;
    Ok(quote! {
        #[automatically_derived]
        impl ::phalanx::netcode::state::Exact for #name {
            fn exact_type() -> ::phalanx::netcode::state::ExactType {
                #exact_type
            }

            #[inline]
            fn write_exact(&self, out: &mut ::std::vec::Vec<u8>) {
                let _ = &out;
                #write
            }

            #[inline]
            fn read_exact(
                reader: &mut ::phalanx::netcode::wire::bytes::Reader<'_>,
            ) -> ::core::result::Result<Self, ::phalanx::netcode::wire::bytes::DecodeError> {
                let _ = &reader;
                #read
            }

            #[inline]
            fn hash_exact(&self, hasher: &mut ::phalanx::netcode::hash::ValueHasher) {
                let _ = &hasher;
                #hash
            }
        }
    })
}

/// The expression of type `Vec<FieldSchema>` for a kind of this type, whose fields are shown as
/// `shown` says where they do not say otherwise.
pub(crate) fn kind_fields(input: &DeriveInput, shown: Option<&'static str>) -> Result<TokenStream> {
    match &input.data {
        Data::Struct(data) => {
            let fields = parse_fields(&input.ident, &data.fields)?;
            Ok(schema_of(&fields, shown))
        }
        Data::Enum(_) | Data::Union(_) => {
            let calls = Wire::default().calls(shown);
            Ok(quote! {
                ::std::vec![::phalanx::netcode::state::FieldSchema::new(
                    "value",
                    <Self as ::phalanx::netcode::state::Exact>::exact_type(),
                ) #calls]
            })
        }
    }
}

/// A field: how the source names it, its type, and what it declares for the wire.
struct Field<'a> {
    member: Member,
    ty: &'a Type,
    wire: Wire,
}

/// A variant of an enum.
struct Variant<'a> {
    name: &'a Ident,
    tag: u8,
    fields: Vec<Field<'a>>,
}

/// Bodies of the four methods.
struct Body {
    exact_type: TokenStream,
    write: TokenStream,
    read: TokenStream,
    hash: TokenStream,
}

fn parse_fields<'a>(owner: &Ident, fields: &'a Fields) -> Result<Vec<Field<'a>>> {
    fields
        .iter()
        .zip(fields.members())
        .map(|(field, member)| {
            refuse_exact_attributes(&field.attrs)?;
            if mentions(field.ty.to_token_stream(), owner) {
                return Err(Error::new_spanned(
                    &field.ty,
                    "a recursive type has no finite exact form; refer to other entities by NetId",
                ));
            }
            Ok(Field {
                member,
                ty: &field.ty,
                wire: Wire::parse(&field.attrs, &field.ty)?,
            })
        })
        .collect()
}

fn parse_variants(input: &DeriveInput) -> Result<Vec<Variant<'_>>> {
    let Data::Enum(data) = &input.data else {
        return Ok(Vec::new());
    };
    refuse_exact_attributes(&input.attrs)?;
    if data.variants.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "an enum without variants has no values",
        ));
    }
    let mut variants: Vec<Variant<'_>> = Vec::new();
    for (index, variant) in data.variants.iter().enumerate() {
        if let Some(attribute) = variant
            .attrs
            .iter()
            .find(|a| a.path().is_ident("networked"))
        {
            return Err(Error::new_spanned(
                attribute,
                "`networked` stands on types and fields, not on variants",
            ));
        }
        let tag = match explicit_tag(&variant.attrs)? {
            Some(tag) => tag,
            None => u8::try_from(index).map_err(|_too_many| {
                Error::new_spanned(variant, "an exact enum has at most 256 variants")
            })?,
        };
        if let Some(other) = variants.iter().find(|other| other.tag == tag) {
            return Err(Error::new_spanned(
                variant,
                format!("variant `{}` has the tag {tag} already", other.name),
            ));
        }
        variants.push(Variant {
            name: &variant.ident,
            tag,
            fields: parse_fields(&input.ident, &variant.fields)?,
        });
    }
    variants.sort_by_key(|variant| variant.tag);
    Ok(variants)
}

/// The tag in `#[exact(tag = 3)]`.
fn explicit_tag(attributes: &[Attribute]) -> Result<Option<u8>> {
    let mut tag = None;
    for attribute in attributes.iter().filter(|a| a.path().is_ident("exact")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("tag") {
                return Err(meta.error("expected `tag = 0..=255`"));
            }
            if tag.is_some() {
                return Err(meta.error("the tag is given twice"));
            }
            tag = Some(meta.value()?.parse::<LitInt>()?.base10_parse::<u8>()?);
            Ok(())
        })?;
    }
    Ok(tag)
}

/// `#[exact(…)]` means something on variants only.
fn refuse_exact_attributes(attributes: &[Attribute]) -> Result<()> {
    match attributes.iter().find(|a| a.path().is_ident("exact")) {
        Some(attribute) => Err(Error::new_spanned(
            attribute,
            "`exact` stands on variants of enums only",
        )),
        None => Ok(()),
    }
}

/// Whether `name` or `Self` occurs in `tokens` as a type of its own: `id::NetId` in a `NetId` is
/// another type.
fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    let mut qualified = false;
    for token in tokens {
        let found = match &token {
            TokenTree::Ident(ident) => !qualified && (ident == name || ident == "Self"),
            TokenTree::Group(group) => mentions(group.stream(), name),
            TokenTree::Punct(_) | TokenTree::Literal(_) => false,
        };
        if found {
            return true;
        }
        qualified = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ':');
    }
    false
}

/// A field's name as it stands in the schema: `r#type` is `type`.
fn schema_name(member: &Member) -> String {
    match member {
        Member::Named(ident) => plain_name(ident),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

/// An identifier without the mark of a raw one.
pub(crate) fn plain_name(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map(str::to_owned).unwrap_or(name)
}

/// The expression of type `Vec<FieldSchema>` for `fields`.
fn schema_of(fields: &[Field<'_>], shown: Option<&'static str>) -> TokenStream {
    let entries = fields.iter().map(|field| {
        let name = schema_name(&field.member);
        let ty = field.ty;
        let calls = field.wire.calls(shown);
        quote! {
            ::phalanx::netcode::state::FieldSchema::new(
                #name,
                <#ty as ::phalanx::netcode::state::Exact>::exact_type(),
            ) #calls
        }
    });
    quote! { ::std::vec![#(#entries),*] }
}

/// `{ member: <Type>::read_exact(reader)?, … }`, which fits structs of all three shapes.
fn read_fields(fields: &[Field<'_>]) -> TokenStream {
    let entries = fields.iter().map(|Field { member, ty, .. }| {
        quote! { #member: <#ty as ::phalanx::netcode::state::Exact>::read_exact(reader)? }
    });
    quote! { { #(#entries),* } }
}

fn struct_body(fields: &[Field<'_>]) -> Body {
    let schema = schema_of(fields, None);
    let read = read_fields(fields);
    let members: Vec<_> = fields.iter().map(|field| &field.member).collect();
    Body {
        exact_type: quote! { ::phalanx::netcode::state::ExactType::Struct(#schema) },
        write: quote! {
            #(::phalanx::netcode::state::Exact::write_exact(&self.#members, out);)*
        },
        read: quote! { ::core::result::Result::Ok(Self #read) },
        hash: quote! {
            #(::phalanx::netcode::state::Exact::hash_exact(&self.#members, hasher);)*
        },
    }
}

fn enum_body(name: &Ident, variants: &[Variant<'_>]) -> Body {
    let mut schemas = Vec::new();
    let mut writes = Vec::new();
    let mut reads = Vec::new();
    let mut hashes = Vec::new();
    for variant in variants {
        let (ident, tag) = (variant.name, variant.tag);
        let variant_name = plain_name(ident);
        let schema = schema_of(&variant.fields, None);
        let read = read_fields(&variant.fields);
        let members: Vec<_> = variant.fields.iter().map(|field| &field.member).collect();
        let bindings: Vec<_> = (0..members.len())
            .map(|index| format_ident!("field_{index}"))
            .collect();
        schemas.push(quote! {
            (#tag, ::std::string::String::from(#variant_name), #schema)
        });
        writes.push(quote! {
            Self::#ident { #(#members: #bindings),* } => {
                out.push(#tag);
                #(::phalanx::netcode::state::Exact::write_exact(#bindings, out);)*
            }
        });
        reads.push(quote! { #tag => ::core::result::Result::Ok(Self::#ident #read), });
        hashes.push(quote! {
            Self::#ident { #(#members: #bindings),* } => {
                hasher.u8(#tag);
                #(::phalanx::netcode::state::Exact::hash_exact(#bindings, hasher);)*
            }
        });
    }
    if variants.len() < 256 {
        let message = format!("an unknown variant of {name}");
        reads.push(quote! {
            _ => ::core::result::Result::Err(
                ::phalanx::netcode::wire::bytes::DecodeError::Invalid(#message),
            ),
        });
    }
    Body {
        exact_type: quote! {
            ::phalanx::netcode::state::ExactType::Enum(::std::vec![#(#schemas),*])
        },
        write: quote! { match self { #(#writes)* } },
        read: quote! { match reader.u8()? { #(#reads)* } },
        hash: quote! { match self { #(#hashes)* } },
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn error(input: &DeriveInput) -> String {
        expand(input).unwrap_err().to_string()
    }

    #[test]
    fn types_without_one_form_are_refused() {
        let generic = error(&parse_quote! { struct A<T> { x: T } });
        assert!(generic.contains("generic"), "{generic}");
        let borrowed = error(&parse_quote! { struct A<'a>(&'a str); });
        assert!(borrowed.contains("generic"), "{borrowed}");
        let recursive = error(&parse_quote! { struct Tree { children: Vec<Tree> } });
        assert!(recursive.contains("recursive"), "{recursive}");
        let recursive = error(&parse_quote! { enum Tree { Leaf, Node(Option<(u8, Self)>) } });
        assert!(recursive.contains("recursive"), "{recursive}");
        assert!(expand(&parse_quote! { struct NetId(id::NetId); }).is_ok());
        let union = error(&parse_quote! { union U { a: u8 } });
        assert!(union.contains("union"), "{union}");
        let empty = error(&parse_quote! { enum Never {} });
        assert!(empty.contains("without variants"), "{empty}");
    }

    #[test]
    fn tags_are_unique_bytes() {
        let twice = error(&parse_quote! { enum E { #[exact(tag = 1)] A, B } });
        assert!(twice.contains("tag 1"), "{twice}");
        let large = error(&parse_quote! { enum E { #[exact(tag = 256)] A } });
        assert!(
            large.contains("256") || large.contains("too large"),
            "{large}"
        );
        let unknown = error(&parse_quote! { enum E { #[exact(tags = 2)] A } });
        assert!(unknown.contains("expected `tag"), "{unknown}");
        let misplaced = error(&parse_quote! { struct S { #[exact(tag = 2)] a: u8 } });
        assert!(misplaced.contains("variants"), "{misplaced}");
    }

    #[test]
    fn an_enum_may_have_256_variants_and_no_more() {
        let with = |count: usize| -> DeriveInput {
            let names = (0..count).map(|index| format_ident!("V{index}"));
            parse_quote! { enum E { #(#names),* } }
        };
        assert!(expand(&with(256)).is_ok());
        let message = error(&with(257));
        assert!(message.contains("at most 256"), "{message}");
    }
}
