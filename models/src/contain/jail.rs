//! What a worker gives up before it sees a model: memory, files, processes, and every system call that scoring does not need.
//!
//! Linux only. After this nothing in the process can open a socket or a file for writing, start a program or another process.

use std::collections::BTreeMap;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

/// System calls that scoring needs: memory, the socket that is there, time, the end.
const NEEDED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_getrusage,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// System calls that are answered with "permission denied": libraries try them and go on without.
const DENIED: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_ioctl,
    libc::SYS_prlimit64,
];
#[cfg(target_arch = "x86_64")]
const DENIED_OLD: &[i64] = &[libc::SYS_open, libc::SYS_stat, libc::SYS_access, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_OLD: &[i64] = &[];

/// Bounds memory and files. Inherited by nothing: the process can start no other.
///
/// # Errors
/// What the system said.
pub fn limit(memory_bytes: u64) -> Result<(), String> {
    let limits = [
        ("memory", Resource::As, memory_bytes),
        ("size of files", Resource::Fsize, 0),
        ("core files", Resource::Core, 0),
        ("open files", Resource::Nofile, 64),
    ];
    for (what, resource, most) in limits {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| format!("the {what} of the worker cannot be bounded: {error}"))?;
    }
    Ok(())
}

/// Gives up every system call but those of scoring, on all threads. A forbidden one ends the process.
///
/// # Errors
/// What the system said; then no model may be loaded.
pub fn lock() -> Result<(), String> {
    let denied: Vec<i64> = DENIED.iter().chain(DENIED_OLD).copied().collect();
    let needed: Vec<i64> = NEEDED.iter().chain(&denied).copied().collect();
    let denying = filter(&denied, SeccompAction::Allow, SeccompAction::Errno(libc::EACCES.unsigned_abs()))?;
    let allowing = filter(&needed, SeccompAction::KillProcess, SeccompAction::Allow)?;
    // Of several filters the strictest answer holds; the one that kills comes last, because it forbids to install another.
    for program in [denying, allowing] {
        apply_filter_all_threads(&program).map_err(|error| format!("the worker's system calls cannot be filtered: {error}"))?;
    }
    Ok(())
}

fn filter(calls: &[i64], otherwise: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, String> {
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let here = std::env::consts::ARCH.try_into().map_err(|error| format!("no filter for this processor: {error}"))?;
    let filter = SeccompFilter::new(rules, otherwise, listed, here);
    let program = filter.and_then(BpfProgram::try_from);
    program.map_err(|error| format!("the worker's filter cannot be built: {error}"))
}
