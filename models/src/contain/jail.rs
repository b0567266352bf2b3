//! What a worker gives up before it sees a model: memory, files, processes, and every system call that scoring does not need.
//!
//! Linux only. After this nothing in the process can open a socket or a file for writing, start a program or another process.

use std::collections::BTreeMap;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter_all_threads,
};

/// System calls that scoring needs: memory, the socket that is there, time, whether the scorer is there, the end.
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
    libc::SYS_getppid,
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
/// What `fcntl` may be asked: how a file was opened. With others a worker could have signals sent to any process of its user.
const FCNTL: &[i32] = &[libc::F_GETFD, libc::F_GETFL];
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
    let whole = |calls: &[i64]| calls.iter().map(|call| (*call, Vec::new())).collect::<Rules>();
    let mut needed = whole(NEEDED);
    needed.extend(whole(&denied));
    needed.insert(libc::SYS_fcntl, fcntl()?);
    let denying = filter(whole(&denied), SeccompAction::Allow, SeccompAction::Errno(libc::EACCES.unsigned_abs()))?;
    let allowing = filter(needed, SeccompAction::KillProcess, SeccompAction::Allow)?;
    // Of several filters the strictest answer holds; the one that kills comes last, because it forbids to install another.
    for program in [denying, allowing] {
        apply_filter_all_threads(&program).map_err(|error| format!("the worker's system calls cannot be filtered: {error}"))?;
    }
    Ok(())
}

/// Calls with the conditions of which one must hold; none: whatever the arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The second argument is the command.
fn fcntl() -> Result<Vec<SeccompRule>, String> {
    let rule = |command: &i32| {
        let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(command.unsigned_abs()))?;
        SeccompRule::new(vec![is])
    };
    let rules: Result<Vec<_>, seccompiler::BackendError> = FCNTL.iter().map(rule).collect();
    rules.map_err(|error| format!("the worker's filter cannot be built: {error}"))
}

fn filter(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, String> {
    let here = std::env::consts::ARCH.try_into().map_err(|error| format!("no filter for this processor: {error}"))?;
    let filter = SeccompFilter::new(rules, otherwise, listed, here);
    let program = filter.and_then(BpfProgram::try_from);
    program.map_err(|error| format!("the worker's filter cannot be built: {error}"))
}
