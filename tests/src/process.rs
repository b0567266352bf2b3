//! Child processes: started, awaited, measured, and ended when dropped.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A child process that is killed, by its id, when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Processor time of a process.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    /// User and system time, microseconds.
    pub micros: u64,
}

impl Process {
    /// Starts a program with its output in a file below `folder`.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> io::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = std::fs::File::create(&log)?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until something listens on that address; fails with the process's last words when it ends or takes over a minute.
    pub fn wait_for_port(&mut self, address: SocketAddr) -> io::Result<()> {
        let listens = || TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok();
        self.wait_until(&format!("listen on {address}"), listens)
    }

    /// Waits until `GET /readyz` there is answered with 200; fails as [`Process::wait_for_port`] does.
    pub fn wait_for_ready(&mut self, address: SocketAddr) -> io::Result<()> {
        self.wait_until(&format!("say ready on {address}"), || says_ready(address).unwrap_or(false))
    }

    fn wait_until(&mut self, what: &str, reached: impl Fn() -> bool) -> io::Result<()> {
        for _ in 0..6_000 {
            if reached() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("{} ended with {status}:\n{}", self.name, self.last_words())));
            }
            // Another process's progress gives no event to wait for; this is a poll, bounded above.
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("{} does not {what} after a minute:\n{}", self.name, self.last_words())))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for its end and returns whether it ended well.
    pub fn wait(&mut self) -> io::Result<bool> {
        Ok(self.child.wait()?.success())
    }

    /// Processor time so far, from `/proc/<pid>/task/*/schedstat`: in nanoseconds, where `stat` goes in steps of 10 ms.
    /// Threads that have ended are not in it.
    pub fn cpu(&self) -> io::Result<CpuTime> {
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += stat.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(CpuTime { micros: nanos / 1_000 })
    }

    /// The end of its output.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// Asks a metrics listener whether its process is ready.
fn says_ready(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(200))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head.ends_with(b"200"))
}

/// Where the operating system takes no ports of its own accord: below the range of outgoing connections (32768 and more on Linux), so
/// that nobody's client takes one between two runs of a server; a Redis Cluster's second ports, 10,000 further, are below it as well.
const PORTS: std::ops::Range<u16> = 10_240..20_240;

/// A loopback address with a port that is free and that no other process of these suites gets while this one lives.
///
/// # Errors
/// When there is none, or the temporary folder cannot be written.
pub fn free_address() -> io::Result<SocketAddr> {
    static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join(format!("telltale-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder)?;
    // Processes begin apart from one another; which port it is matters to nobody.
    let begin = (std::process::id() % u32::from(PORTS.end - PORTS.start)) as u16;
    for port in (PORTS.start + begin..PORTS.end).chain(PORTS.start..PORTS.start + begin) {
        let claim = File::create(folder.join(port.to_string()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if claim.try_lock().is_ok() && TcpListener::bind(address).is_ok() {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
            return Ok(address);
        }
    }
    Err(io::Error::other(format!("no port from {} to {} is free on loopback", PORTS.start, PORTS.end)))
}

/// A program that the workspace builds, in the same profile as the running one.
pub fn built(name: &str) -> io::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let found = me.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| io::Error::other(format!("{name} is not built; run `make build` first")))
}
