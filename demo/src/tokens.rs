//! What a host tells its players: where it listens, and how to join.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::options::{Hosting, Settings};
use crate::session::GameLink;

/// Where a host listens if nothing else is said.
const PORT: u16 = 7777;

/// Where a host listens.
///
/// # Errors
/// If a name stands there that is not known.
pub fn bind_of(hosting: &Hosting) -> Result<SocketAddr> {
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let named = hosting.bind.as_ref();
    named.map_or(Ok(anywhere), |place| place.resolve("--bind"))
}

/// For whom a host gives join codes.
#[derive(Clone, Copy, Debug)]
pub struct Guests {
    /// Players that join.
    pub players: u8,
    /// What others without a slot may come for, each with a code of its own.
    pub others: &'static [&'static str],
}

/// Says on stdout where `link` listens; then, unless it is insecure or nobody joins here, gives a join
/// code per player: a line `join CODE` each, or a file each in the folder for them, named in a line
/// `token FILE`. Those of a standby and an arbiter come last, as `standby CODE` and `arbiter CODE`, or `token FILE`.
///
/// # Errors
/// If codes cannot be made or written.
pub fn announce(
    link: &GameLink,
    hosting: &Hosting,
    settings: &Settings,
    guests: Option<Guests>,
) -> Result<()> {
    let local = link.inner().local_addr();
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening {local}")?;
    if let Some(guests) = guests.filter(|_| !settings.insecure) {
        let public = hosting.public.as_ref();
        let public = public.map(|place| place.resolve("--public")).transpose()?;
        let address = public_address(local, public)?;
        if local.ip().is_unspecified() && hosting.public.is_none() {
            let mut stderr = io::stderr().lock();
            writeln!(
                stderr,
                "the join codes lead to {address}, so they work on this machine only; for others, say --public ADDRESS:PORT"
            )?;
        }
        let life = hosting.codes_live_for()?;
        let count = hosting.tokens.unwrap_or_else(|| u16::from(guests.players));
        if let Some(folder) = &hosting.token_dir {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let players = (1..=count).map(|number| ("join", format!("player-{number}.token")));
        let others = guests.others.iter();
        let others = others.map(|&word| (word, format!("{word}.token")));
        for (number, (word, name)) in (1..).zip(players.chain(others)) {
            let token = link
                .inner()
                .mint_token(number, address, life)
                .context("cannot make a join code")?;
            if let Some(folder) = &hosting.token_dir {
                let file = folder.join(name);
                write_secret(&file, &token.to_text())
                    .with_context(|| format!("cannot write {}", file.display()))?;
                writeln!(stdout, "token {}", file.display())?;
            } else {
                writeln!(stdout, "{word} {}", token.to_text())?;
            }
        }
    }
    // Whoever waits for these lines through a pipe must see them now.
    stdout.flush()?;
    Ok(())
}

/// Writes a file that only its owner may read, where the system knows owners.
fn write_secret(file: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(file)?, "{text}")
}

/// The address for join codes.
fn public_address(local: SocketAddr, public: Option<SocketAddr>) -> Result<SocketAddr> {
    if let Some(mut public) = public {
        if public.port() == 0 {
            public.set_port(local.port());
        }
        ensure!(
            !public.ip().is_unspecified(),
            "--public must name one address"
        );
        return Ok(public);
    }
    if local.ip().is_unspecified() {
        // It listens everywhere; players elsewhere need --public to say which address is theirs.
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, local.port())));
    }
    Ok(local)
}
