//! Real Redis on loopback: one server, a master with Sentinels, a Cluster of six, started and stopped by their own process ids.
//!
//! A missing program is an error that says how to install it, never a skipped test.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Process, free_address};

pub use crate::tcp_proxy::TcpProxy;

/// A program of Debian's `redis-server` and `redis-tools`.
fn program(name: &str) -> io::Result<Command> {
    match Command::new(name).arg("--version").output() {
        Ok(_) => Ok(Command::new(name)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(io::Error::other(format!("{name} is not installed; install it with `sudo apt-get install redis-server`")))
        }
        Err(error) => Err(error),
    }
}

/// A running `redis-server`.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
    options: Vec<String>,
}

impl Redis {
    /// Starts one below `folder` on a free port, without persistence; `options` are more of its command line.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(folder: &Path, options: &[&str]) -> io::Result<Self> {
        Self::start_at(folder, free_address()?, options.iter().map(|option| (*option).to_owned()).collect())
    }

    fn start_at(folder: &Path, address: SocketAddr, options: Vec<String>) -> io::Result<Self> {
        let data = folder.join(format!("redis-{}", address.port()));
        std::fs::create_dir_all(&data)?;
        let mut command = program("redis-server")?;
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--repl-diskless-sync-delay", "0"]).arg("--dir").arg(&data).args(&options);
        let mut process = Process::start(&format!("redis-{}", address.port()), &mut command, folder)?;
        process.wait_for_port(address)?;
        let redis = Self { process, address, folder: folder.to_path_buf(), options };
        redis.wait_for("PONG", &["PING"])?;
        Ok(redis)
    }

    /// Kills it, as a machine that fails does.
    ///
    /// # Errors
    /// When it had ended already.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait().map(drop)
    }

    /// Starts it again at the same address: empty, unless its options say that it persists.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(self) -> io::Result<Self> {
        let (address, folder, options) = (self.address, self.folder.clone(), self.options.clone());
        drop(self);
        Self::start_at(&folder, address, options)
    }

    /// Stops it in its tracks, or lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self, pause: bool) -> io::Result<()> {
        self.process.signal(if pause { Signal::STOP } else { Signal::CONT })
    }

    /// One command, as `redis-cli` shows its answer.
    ///
    /// # Errors
    /// When `redis-cli` cannot be run.
    pub fn command(&self, arguments: &[&str]) -> io::Result<String> {
        redis_cli(self.address, arguments)
    }

    /// A number out of one section of `INFO`.
    ///
    /// # Errors
    /// When it does not answer, or has no such number.
    pub fn info(&self, section: &str, name: &str) -> io::Result<f64> {
        let told = self.command(&["INFO", section])?;
        let found = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.and_then(|text| text.trim().parse().ok()).ok_or_else(|| io::Error::other(format!("no {name} in {told}")))
    }

    /// Its processor time so far, microseconds.
    ///
    /// # Errors
    /// As [`Redis::info`].
    pub fn cpu_us(&self) -> io::Result<f64> {
        Ok((self.info("cpu", "used_cpu_user")? + self.info("cpu", "used_cpu_sys")?) * 1e6)
    }

    fn wait_for(&self, wanted: &str, arguments: &[&str]) -> io::Result<()> {
        wait_for(self.address, wanted, arguments)
    }
}

fn redis_cli(address: SocketAddr, arguments: &[&str]) -> io::Result<String> {
    let mut command = program("redis-cli")?;
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]).args(arguments);
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// Asks until the answer holds what is wanted; at most a minute.
fn wait_for(address: SocketAddr, wanted: &str, arguments: &[&str]) -> io::Result<()> {
    let mut last = String::new();
    for _ in 0..600 {
        last = redis_cli(address, arguments).unwrap_or_default();
        if last.contains(wanted) {
            return Ok(());
        }
        // Another process's progress gives no event to wait for; this is a poll, bounded above.
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(io::Error::other(format!("redis at {address} does not answer `{wanted}` to {arguments:?}; last: {last}")))
}

/// An authority and one certificate of it for 127.0.0.1, good for servers and clients: PEM files below a folder.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes them with `openssl`.
    ///
    /// # Errors
    /// When it is not installed or fails.
    pub fn make(folder: &Path) -> io::Result<Self> {
        let file = |name: &str| folder.join(name);
        let all = Self { authority: file("ca.pem"), certificate: file("one.pem"), key: file("one.key") };
        let authority_key = file("ca.key");
        let run = |out: &Path, key: &Path, subject: &str, more: &[&std::ffi::OsStr]| {
            let mut command = Command::new("openssl");
            command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
            let output = command.args(["-subj", subject, "-keyout"]).arg(key).arg("-out").arg(out).args(more).output()?;
            let words = String::from_utf8_lossy(&output.stderr);
            if output.status.success() { Ok(()) } else { Err(io::Error::other(format!("openssl failed: {words}"))) }
        };
        run(&all.authority, &authority_key, "/CN=authority", &[])?;
        let extensions = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-CA"];
        let mut more: Vec<&std::ffi::OsStr> = extensions.iter().map(AsRef::as_ref).collect();
        more.extend([all.authority.as_os_str(), "-CAkey".as_ref(), authority_key.as_os_str()]);
        run(&all.certificate, &all.key, "/CN=one", &more)?;
        Ok(all)
    }
}

/// A master, a replica and three Sentinels.
#[derive(Debug)]
pub struct Sentinels {
    /// Master and replica, as they began.
    pub servers: Vec<Redis>,
    _sentinels: Vec<Process>,
    /// Where the Sentinels listen.
    pub addresses: Vec<SocketAddr>,
}

/// The name under which the Sentinels watch the master.
pub const MASTER: &str = "telltale";

impl Sentinels {
    /// Starts all five; `options` go to both servers.
    ///
    /// # Errors
    /// When something is not installed or does not start.
    pub fn start(folder: &Path, options: &[&str]) -> io::Result<Self> {
        let master = Redis::start(folder, options)?;
        let port = master.address.port().to_string();
        let mut replica_options = options.to_vec();
        replica_options.extend(["--replicaof", "127.0.0.1", &port]);
        let replica = Redis::start(folder, &replica_options)?;
        replica.wait_for("master_link_status:up", &["INFO", "replication"])?;
        let (mut sentinels, mut addresses) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let address = free_address()?;
            let config = folder.join(format!("sentinel-{number}.conf"));
            let text = format!(
                "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {port} 2\nsentinel down-after-milliseconds {MASTER} 500\n\
                 sentinel failover-timeout {MASTER} 3000\nsentinel parallel-syncs {MASTER} 1\n",
                address.port(),
                folder.display()
            );
            std::fs::write(&config, text)?;
            let mut command = program("redis-server")?;
            let mut process = Process::start(&format!("sentinel-{number}"), command.arg(&config).arg("--sentinel"), folder)?;
            process.wait_for_port(address)?;
            sentinels.push(process);
            addresses.push(address);
        }
        let all = Self { servers: vec![master, replica], _sentinels: sentinels, addresses };
        for address in &all.addresses {
            wait_for(*address, "sentinels=3", &["INFO", "sentinel"])?;
            wait_for(*address, "slaves=1", &["INFO", "sentinel"])?;
        }
        Ok(all)
    }

    /// The address of the master, as the first Sentinel knows it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn master(&self) -> io::Result<String> {
        let first = self.addresses.first().ok_or_else(|| io::Error::other("no Sentinel"))?;
        Ok(redis_cli(*first, &["SENTINEL", "get-master-addr-by-name", MASTER])?.split_whitespace().collect::<Vec<_>>().join(":"))
    }
}

/// A Cluster: three masters, a replica each.
#[derive(Debug)]
pub struct Cluster {
    /// All six.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts six servers and makes a Cluster of them.
    ///
    /// # Errors
    /// When something is not installed or does not start.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-config-file", "nodes.conf"];
            nodes.push(Redis::start(folder, &options)?);
        }
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
        let mut create = program("redis-cli")?;
        create.args(["--cluster", "create"]).args(&addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = create.output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("the Cluster could not be made: {}", String::from_utf8_lossy(&output.stdout))));
        }
        for node in &nodes {
            node.wait_for("cluster_state:ok", &["CLUSTER", "INFO"])?;
            node.wait_for("cluster_known_nodes:6", &["CLUSTER", "INFO"])?;
        }
        Ok(Self { nodes })
    }

    /// Moves so many slots, with their keys, from one master to another.
    ///
    /// # Errors
    /// When the move fails.
    pub fn move_slots(&self, count: u32) -> io::Result<()> {
        let first = self.nodes.first().ok_or_else(|| io::Error::other("no node"))?;
        let nodes = first.command(&["CLUSTER", "NODES"])?;
        // Only a node with slots is a master for certain: of a new Cluster not every node has heard yet who replicates whom.
        let has_slots = |line: &&str| line.split_whitespace().count() > 8;
        let masters: Vec<&str> = nodes.lines().filter(has_slots).filter_map(|line| line.split(' ').next()).collect();
        let [from, to, ..] = masters.as_slice() else { return Err(io::Error::other(format!("no two masters in {nodes}"))) };
        let mut command = program("redis-cli")?;
        command.args(["--cluster", "reshard", &first.address.to_string(), "--cluster-from", from, "--cluster-to", to]);
        let output = command.args(["--cluster-slots", &count.to_string(), "--cluster-yes"]).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("resharding failed: {}", String::from_utf8_lossy(&output.stdout))));
        }
        Ok(())
    }
}
