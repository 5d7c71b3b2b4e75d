//! Addresses as people write them: numbers or names, with a port.

use core::fmt;
use core::str::FromStr;
use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context, Result};
use serde::Deserialize;

/// A host and its port, as it was written: `127.0.0.1:7777`, `[::1]:7777`, `localhost:7777`.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Place(String);

impl Place {
    /// The address that the name stands for at present; `option` says where it was written. Of
    /// several, an IPv4 one: a host listens there unless it was told otherwise.
    ///
    /// # Errors
    /// If the name is not known.
    pub fn resolve(&self, option: &str) -> Result<SocketAddr> {
        let unknown = || format!("{option}: no address is known for \"{self}\"");
        let found: Vec<SocketAddr> = self.0.to_socket_addrs().with_context(unknown)?.collect();
        let preferred = found.iter().find(|address| address.is_ipv4());
        preferred.or(found.first()).copied().with_context(unknown)
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_address = text.parse::<SocketAddr>().is_ok();
        let is_name = text.rsplit_once(':').is_some_and(|(name, port)| {
            let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
            !name.is_empty() && name.chars().all(is_plain) && port.parse::<u16>().is_ok()
        });
        if is_address || is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "\"{}\" is not an address with a port, like 127.0.0.1:7777 or localhost:7777",
                text.escape_debug()
            ))
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_with_a_port_are_places_and_nothing_else_is() {
        for good in [
            "127.0.0.1:0",
            "[::1]:7777",
            "localhost:7777",
            "my-host.lan:1",
        ] {
            assert_eq!(good.parse::<Place>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            ":",
            ":7777",
            "127.0.0.1",
            "localhost",
            "localhost:",
            "localhost:port",
            "localhost:65536",
            "::1",
            "two words:1",
            "a:b:1",
            "phx1-AAAA",
        ] {
            let error = bad.parse::<Place>().unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn this_machine_is_found_by_name_and_by_number() {
        let by_name: Place = "localhost:7777".parse().unwrap();
        let by_number: Place = "127.0.0.1:7777".parse().unwrap();
        let found = by_number.resolve("--bind").unwrap();
        assert_eq!(by_name.resolve("--bind").unwrap(), found);
        assert_eq!(found, "127.0.0.1:7777".parse().unwrap());
    }

    #[test]
    fn a_name_that_nobody_has_is_named_with_its_option() {
        // Reserved for names that must not exist (RFC 6761).
        let nowhere: Place = "nowhere.invalid:7777".parse().unwrap();
        let error = format!("{:#}", nowhere.resolve("--public").unwrap_err());
        assert!(error.contains("--public"), "{error}");
        assert!(error.contains("nowhere.invalid:7777"), "{error}");
    }
}
