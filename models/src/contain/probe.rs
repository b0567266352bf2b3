//! What a hostile model would try, done by the worker itself: the proof that the containment holds, and that without it harm is done.

use std::process::Command;

/// Tries something; the error says why it could not be done. A forbidden system call ends the process before that.
///
/// # Errors
/// Why it could not be done, or that there is no such thing to try.
pub fn attempt(what: &str) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    match what {
        "socket" => std::net::UdpSocket::bind("127.0.0.1:0").map(drop).map_err(said),
        "exec" => Command::new("/bin/true").status().map(drop).map_err(said),
        "fork" => std::thread::Builder::new().spawn(|| ()).map(drop).map_err(said),
        // Signal 0 asks only whether it could be sent.
        "kill" => {
            let parent = rustix::process::getppid().ok_or("no parent")?;
            rustix::process::test_kill_process(parent).map_err(|error| error.to_string())
        }
        // The way to a signal for another process begins with it.
        "descriptor" => rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).map(drop).map_err(|error| error.to_string()),
        "write" => std::fs::write("written", b"x").map_err(said),
        "read" => std::fs::read("/etc/passwd").map(drop).map_err(said),
        "memory" => {
            let mut held: Vec<u8> = Vec::new();
            held.try_reserve_exact(2 << 30).map_err(|error| error.to_string())
        }
        "compute" => loop {
            std::hint::spin_loop();
        },
        other => Err(format!("`{other}` cannot be tried; allowed: socket, exec, fork, kill, descriptor, write, read, memory, compute")),
    }
}
