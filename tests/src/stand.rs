//! The whole stand on loopback: scorer, proxy and a small upstream as real processes with configurations of their own.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use telltale_proto::v1::decisions_client::DecisionsClient;
use telltale_proto::v1::entities_client::EntitiesClient;
use telltale_proto::v1::scorer_client::ScorerClient;
use tonic::transport::{Channel, Endpoint};

use crate::process::{Process, built, free_address};

/// A running `telltale serve`.
#[derive(Debug)]
pub struct Scorer {
    /// The process.
    pub process: Process,
    /// Where it scores.
    pub scoring: SocketAddr,
    /// Where it is administered.
    pub admin: SocketAddr,
    /// Where its metrics stand.
    pub metrics: SocketAddr,
    /// Its configuration.
    pub config: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
}

/// Addresses that a scorer keeps over a restart.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    scoring: SocketAddr,
    admin: SocketAddr,
    metrics: SocketAddr,
}

impl Addresses {
    /// Three free ones.
    ///
    /// # Errors
    /// When there is none.
    pub fn free() -> io::Result<Self> {
        Ok(Self { scoring: free_address()?, admin: free_address()?, metrics: free_address()? })
    }
}

impl Scorer {
    /// Starts one below `folder`; `sections` is more of its TOML. Returns once it takes calls.
    ///
    /// # Errors
    /// When it does not start: its last words.
    pub fn start(folder: &Path, sections: &str) -> io::Result<Self> {
        Self::start_at(folder, sections, Addresses::free()?)
    }

    /// The same at addresses that are known already: a restart.
    ///
    /// # Errors
    /// As [`Scorer::start`].
    pub fn start_at(folder: &Path, sections: &str, at: Addresses) -> io::Result<Self> {
        let mut scorer = Self::launch(folder, sections, at)?;
        scorer.process.wait_for_ready(scorer.metrics)?;
        Ok(scorer)
    }

    /// Starts one without waiting for anything.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn launch(folder: &Path, sections: &str, at: Addresses) -> io::Result<Self> {
        let data = folder.join("data");
        let config = folder.join("telltale.toml");
        std::fs::write(&config, configuration(&data, sections, at))?;
        let mut command = Command::new(built("telltale")?);
        let process = Process::start("scorer", command.arg("serve").arg("--config").arg(&config), folder)?;
        let Addresses { scoring, admin, metrics } = at;
        Ok(Self { process, scoring, admin, metrics, config, data })
    }

    /// Its addresses, for a restart.
    pub const fn addresses(&self) -> Addresses {
        Addresses { scoring: self.scoring, admin: self.admin, metrics: self.metrics }
    }

    /// A connection to its scoring listener.
    pub async fn client(&self) -> ScorerClient<Channel> {
        ScorerClient::new(connect(self.scoring)).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20)
    }

    /// Overrides and standing decisions.
    pub async fn entities(&self) -> EntitiesClient<Channel> {
        EntitiesClient::new(connect(self.admin))
    }

    /// The stream of standing decisions.
    pub async fn decisions(&self) -> DecisionsClient<Channel> {
        DecisionsClient::new(connect(self.scoring))
    }
}

/// A scorer's configuration. `sections` may begin with lines of `[scoring]`.
fn configuration(data: &Path, sections: &str, at: Addresses) -> String {
    let (scoring, rest) = sections.split_once("\n[").map_or_else(
        || if sections.starts_with('[') { ("", sections.to_owned()) } else { (sections, String::new()) },
        |(first, rest)| if first.starts_with('[') { ("", sections.to_owned()) } else { (first, format!("[{rest}")) },
    );
    format!(
        "data = {data:?}\n[admin]\nlisten = \"{}\"\n[metrics]\nlisten = \"{}\"\n[scoring]\nlisten = \"{}\"\n{scoring}\n{rest}\n",
        at.admin, at.metrics, at.scoring
    )
}

/// A lazy connection: it is made at the first call and again whenever it is lost.
pub fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap_or_else(|_| Endpoint::from_static("http://127.0.0.1:1")).connect_lazy()
}

/// A running `telltale-proxy`.
#[derive(Debug)]
pub struct Proxy {
    /// The process.
    pub process: Process,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where its metrics stand.
    pub metrics: SocketAddr,
}

/// What a proxy stands between.
#[derive(Clone, Copy, Debug)]
pub struct Between {
    /// The service behind it.
    pub upstream: SocketAddr,
    /// Its scorer.
    pub scorer: SocketAddr,
    /// Time that a request waits for its verdict.
    pub deadline_ms: u32,
}

impl Proxy {
    /// Starts one that believes the forwarding headers of loopback; `extra` is more top-level TOML.
    ///
    /// # Errors
    /// When it does not start: its last words.
    pub fn start(name: &str, folder: &Path, between: Between, extra: &str) -> io::Result<Self> {
        let (listen, metrics) = (free_address()?, free_address()?);
        let config = folder.join(format!("{name}.toml"));
        let decisions = folder.join(format!("{name}.decisions"));
        let Between { upstream, scorer, deadline_ms } = between;
        let text = format!(
            "listen = \"{listen}\"\nupstream = \"http://{upstream}\"\nservice = \"shop\"\ntrusted_hops = [\"127.0.0.1/32\"]\n{extra}\n\
             [scorer]\naddress = \"http://{scorer}\"\ndeadline_ms = {deadline_ms}\n[decisions]\nfile = {decisions:?}\n[metrics]\nlisten = \"{metrics}\"\n"
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(built("telltale-proxy")?);
        let mut process = Process::start(name, command.arg("--config").arg(&config), folder)?;
        process.wait_for_port(listen)?;
        Ok(Self { process, listen, metrics })
    }
}

/// A running upstream that tells what it was sent.
#[derive(Debug)]
pub struct Upstream {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub listen: SocketAddr,
}

impl Upstream {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not start: its last words.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let listen = free_address()?;
        let mut command = Command::new(built("upstream")?);
        let mut process = Process::start("upstream", command.arg(listen.to_string()), folder)?;
        process.wait_for_port(listen)?;
        Ok(Self { process, listen })
    }
}

/// The model repository that ships with the project, if it is there yet.
pub fn shipped_models() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default"));
    path.is_dir().then_some(path)
}
