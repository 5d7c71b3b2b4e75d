//! The layers of the protocol crate, kept by reading its sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each module of the crate, as `netcode/src/lib.rs` draws them. The driver joins node and
/// link, so it stands with the links.
const LAYERS: [(&str, u8); 19] = [
    ("time", 0),
    ("tick", 0),
    ("id", 0),
    ("limits", 0),
    ("prng", 0),
    ("hash", 0),
    ("wire", 1),
    ("input", 2),
    ("state", 2),
    ("delta", 2),
    ("session", 2),
    ("simulation", 2),
    ("lockstep", 3),
    ("statesync", 3),
    ("migration", 3),
    ("replay", 3),
    ("node", 4),
    ("link", 5),
    ("driver", 5),
];
/// The layer whose modules do not know each other.
const SEPARATE: u8 = 3;

/// Names that may stand only in files whose path begins so; with tests of their own or not.
const HOMES: [(&str, &[&str]); 13] = [
    ("bincode", &["wire/codec.rs"]),
    ("lz4_flex", &["wire/compress.rs"]),
    ("renet", &["session/messages"]),
    ("renetcode", &["link/udp"]),
    ("crypto_box", &["link/udp/invitation"]),
    ("nix", &["link/udp/batch"]),
    ("rustix", &["link/udp/batch"]),
    ("UdpSocket", &["link/"]),
    ("Instant", &["link/"]),
    ("SystemTime", &["link/"]),
    ("thread", &["link/"]),
    ("bevy_ecs", &[]),
    ("bevy_utils", &[]),
];
/// Names that may stand in tests only: their order differs from process to process.
const TESTS_ONLY: [&str; 2] = ["HashMap", "HashSet"];

fn layer_of(module: &str) -> Option<u8> {
    let found = LAYERS.iter().find(|(name, _)| *name == module);
    found.map(|(_, layer)| *layer)
}

/// Violations in `text`, the file at `path` below the crate's `src`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let modules: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    let home = modules[0];
    let layer = layer_of(home);
    if home != "lib" && layer.is_none() {
        found.push(format!("{path}:1: module `{home}` has no layer"));
    }
    let mut in_tests = path.ends_with("/tests.rs") || path.contains("/tests/");
    let mut quoted = false;
    for (number, line) in (1..).zip(text.lines()) {
        in_tests |= line.trim_start().starts_with("#[cfg(test)]");
        let code = without_comment(line, &mut quoted);
        let names = names_of(&code);
        for other in imported(&names, modules.len()) {
            let (Some(own), Some(theirs)) = (layer, layer_of(other)) else {
                continue;
            };
            let sideways = own == SEPARATE && theirs == SEPARATE && other != home;
            if theirs > own || sideways {
                found.push(format!("{path}:{number}: `{home}` knows `{other}`"));
            }
        }
        for (name, homes) in HOMES {
            let is_home = homes.iter().any(|home| path.starts_with(home));
            if names.iter().any(|found| found == name) && !is_home {
                found.push(format!("{path}:{number}: `{name}` has no place here"));
            }
        }
        for name in TESTS_ONLY {
            if !in_tests && names.iter().any(|found| found == name) {
                found.push(format!("{path}:{number}: `{name}` outside of tests"));
            }
        }
    }
    found
}

/// The line without a comment and without what stands in quotes, of which some go on from the
/// line before.
fn without_comment(line: &str, open: &mut bool) -> String {
    let mut code = String::new();
    let mut quoted = *open;
    let mut previous = ' ';
    for (at, sign) in line.char_indices() {
        if !quoted && line[at..].starts_with("//") {
            break;
        }
        if sign == '"' && previous != '\\' && previous != '\'' {
            quoted = !quoted;
        } else if !quoted {
            code.push(sign);
        }
        previous = sign;
    }
    *open = quoted && line.ends_with('\\');
    code
}

/// Identifiers of `code`, with `::` as its own entry.
fn names_of(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut word = String::new();
    let mut previous = ' ';
    for sign in code.chars().chain([' ']) {
        if sign.is_alphanumeric() || sign == '_' {
            word.push(sign);
        } else {
            if !word.is_empty() {
                names.push(core::mem::take(&mut word));
            }
            if sign == ':' && previous == ':' {
                names.push("::".to_owned());
            } else if sign == '{' {
                names.push("{".to_owned());
            }
        }
        previous = sign;
    }
    names
}

/// Modules of the crate that a line names through `crate::`, or through enough `super::`.
fn imported(names: &[String], depth: usize) -> Vec<&str> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < names.len() {
        let mut supers = 0;
        let start = at;
        while names.get(at).is_some_and(|name| name == "super") {
            supers += 1;
            at += 2;
        }
        let rooted = names.get(at).is_some_and(|name| name == "crate") || supers >= depth;
        if rooted && names[at.min(names.len() - 1)] == "crate" {
            at += 2;
        }
        if rooted && (supers > 0 || at > start) {
            if names.get(at).is_some_and(|name| name == "{") {
                let rest = names[at..].iter().map(String::as_str);
                found.extend(rest.filter(|name| layer_of(name).is_some()));
                return found;
            }
            found.extend(names.get(at).map(String::as_str));
        }
        at = at.max(start) + 1;
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("the sources lie beside this package");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn netcode() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../netcode")
}

#[test]
fn modules_import_downwards_only_and_crates_stay_in_their_place() {
    let root = netcode().join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "only {} sources were found", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let relative = path.strip_prefix(&root).unwrap();
            violations(&relative.to_string_lossy().replace('\\', "/"), &text)
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_drawing_in_the_crate_names_every_module() {
    let lib = fs::read_to_string(netcode().join("src/lib.rs")).unwrap();
    for line in lib.lines() {
        if let Some(name) = line.strip_prefix("pub mod ") {
            let name = name.trim_end_matches(';');
            let layer = layer_of(name).unwrap_or_else(|| panic!("`{name}` has no layer"));
            let drawn = lib
                .lines()
                .find(|line| line.starts_with(&format!("//! L{layer} ")))
                .unwrap_or_default();
            assert!(
                drawn.split_whitespace().any(|word| word == name),
                "`{name}` is not drawn in layer {layer}"
            );
        }
    }
}

#[test]
fn the_protocol_crate_depends_on_no_ecs() {
    let manifest = fs::read_to_string(netcode().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("bincode"), "not the manifest expected");
    assert!(!manifest.contains("bevy"));
}

#[test]
fn every_kind_of_violation_is_found() {
    let cases = [
        ("wire/header.rs", "use crate::session::peer::Peer;", 1),
        ("lockstep/exchange.rs", "use crate::replay::Header;", 1),
        ("node/host.rs", "let x = crate::link::Link::new();", 1),
        ("wire.rs", "use super::{time::Time, node::Node};", 1),
        ("wire/range.rs", "use super::super::input::InputFrame;", 1),
        ("session/peer.rs", "use bincode::Encode;", 1),
        ("session/peer.rs", "use renet::RenetClient;", 1),
        ("session/messages/filter.rs", "use renet::RenetClient;", 0),
        ("node/core.rs", "std::thread::sleep(x);", 1),
        ("node/core.rs", "use std::collections::HashMap;", 1),
        (
            "node/core.rs",
            "#[cfg(test)]\nmod tests {\nuse std::collections::HashMap;",
            0,
        ),
        ("wire/header.rs", "/// [`Inbox`](crate::session::outbox)", 0),
        (
            "session/peer.rs",
            "use crate::wire::header::{self, Prefix};",
            0,
        ),
        ("session/peer.rs", "use super::clock::Rtt;", 0),
        ("node.rs", "use crate::{link::Link, time::Time};", 1),
        ("novelty.rs", "", 1),
    ];
    for (path, text, count) in cases {
        let found = violations(path, text);
        assert_eq!(found.len(), count, "{path}: {text}: {found:?}");
    }
}
