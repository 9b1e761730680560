//! Processes: clone, namespaces, credentials, seccomp, exec.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// What [`clone3`] returns, once in each process.
#[derive(Debug)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the caller.
    Parent {
        /// Process id as the caller sees it.
        pid: i32,
        /// The same as a pidfd (close-on-exec).
        pidfd: OwnedFd,
    },
}

/// Not libc's constant, which has too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` (linux/sched.h).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks with new namespaces (`CLONE_NEW*`) and, on cgroup v2, straight into a control group.
///
/// The caller must be single-threaded (see [`ensure_single_threaded`]): the child goes on to run
/// ordinary code, and a lock that another thread held would stay locked for ever.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Default::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has a copy of the memory and the stack, as after fork(2);
    // the process has one thread, so that no lock can be held by another one.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel has stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent { pid: pid as i32, pidfd })
}

/// Fails with `Unsupported` in a process with several threads.
pub fn ensure_single_threaded() -> io::Result<()> {
    // The link count of the directory is the number of threads plus two.
    if rustix::fs::stat("/proc/self/task")?.st_nlink <= 3 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "containers are started by a process with one thread only",
    ))
}

/// Ends the process at once, without running anything of the C library's exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Moves the process into the namespaces (`CLONE_NEW*`) of a pidfd or into that of a namespace fd.
pub fn setns(fd: impl AsFd, flags: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags) }.into())?;
    Ok(())
}

/// Gives the process new namespaces.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: CLONE_FILES and the like are of no concern to memory safety here.
    check(unsafe { libc::unshare(flags) }.into())?;
    Ok(())
}

fn prctl(option: i32, a: u64, b: u64) -> io::Result<i32> {
    // SAFETY: only options with integer arguments are passed.
    check(unsafe { libc::prctl(option, a, b, 0u64, 0u64) }.into()).map(|value| value as i32)
}

/// The signal the process gets when its parent dies.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64, 0).map(drop)
}

/// Whether others may trace the process and open its memory and program through procfs.
pub fn set_dumpable(on: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, on.into(), 0).map(drop)
}

/// Sets `no_new_privs` for good.
pub fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Keeps the permitted capabilities over a change of user ids.
pub fn keep_capabilities() -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).map(drop)
}

/// The highest capability the kernel knows.
pub fn last_capability() -> u32 {
    (0..64).take_while(|cap| prctl(libc::PR_CAPBSET_READ, *cap, 0).is_ok()).last().unwrap_or(0) as u32
}

/// The calling thread's bounding set.
pub fn bounding_set() -> u64 {
    let has = |cap: &u64| matches!(prctl(libc::PR_CAPBSET_READ, *cap, 0), Ok(1));
    (0..64).filter(has).fold(0, |set, cap| set | 1 << cap)
}

/// Takes a capability out of the bounding set for good.
pub fn drop_bounding(cap: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, cap.into(), 0).map(drop)
}

/// Makes `set` the ambient capabilities; they must be permitted and inheritable.
pub fn set_ambient(set: u64) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for cap in (0..64u64).filter(|cap| set >> cap & 1 == 1) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, cap)?;
    }
    Ok(())
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// The calling thread's effective, permitted and inheritable capabilities.
pub fn capget() -> io::Result<(u64, u64, u64)> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads one header and fills two data blocks.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |pick: fn(&CapData) -> u32| u64::from(pick(&data[0])) | u64::from(pick(&data[1])) << 32;
    Ok((join(|d| d.effective), join(|d| d.permitted), join(|d| d.inheritable)))
}

/// Sets the calling thread's capabilities.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two data blocks.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })?;
    Ok(())
}

/// Becomes a user: supplementary groups, then all group ids, then all user ids.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads `groups.len()` ids; the others are plain integers. The raw calls
    // change the calling thread only, which is the only one.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// One instruction of classic BPF (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip where the comparison holds.
    pub jump_true: u8,
    /// Instructions to skip where it does not.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct BpfProgram {
    len: u16,
    filter: *const BpfInstruction,
}

/// Installs a seccomp filter with `SECCOMP_FILTER_FLAG_*` flags. Needs `no_new_privs` or CAP_SYS_ADMIN.
pub fn seccomp_load(filter: &[BpfInstruction], flags: u64) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = BpfProgram { len, filter: filter.as_ptr() };
    // SAFETY: the kernel copies `len` instructions, which live across the call.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    Ok(())
}

/// Replaces the program. Returns only on failure.
pub fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and their strings live across the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: no descriptor is closed here.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes every descriptor from `first` on. For a child that has its standard streams and nothing
/// else; whoever still holds an `OwnedFd` must not drop it any more.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller gives up all descriptors; a later use of one fails with EBADF.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Duplicates `fd` onto a standard stream's number (0, 1 or 2), without close-on-exec.
pub fn dup_onto(fd: impl AsFd, stream: i32) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    if fd == stream {
        // SAFETY: plain integers; std does not own the standard streams' descriptors.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into())?;
    } else {
        // SAFETY: as above.
        check(unsafe { libc::dup2(fd, stream) }.into())?;
    }
    Ok(())
}

/// Sets host or NIS domain name of the UTS namespace.
pub fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length belong together.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())?;
    Ok(())
}

/// Sets the NIS domain name of the UTS namespace.
pub fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length belong together.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into())?;
    Ok(())
}

/// Sets one resource limit (`RLIMIT_*`) of the calling process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one rlimit64 and writes none.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })?;
    Ok(())
}

/// The calling process' limit as (soft, hard).
pub fn rlimit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit64>(), &raw mut limit)
    })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets every signal's action to the default, and blocks none.
pub fn reset_signals() -> io::Result<()> {
    /// `struct kernel_sigaction`; all zeros is the default action.
    #[repr(C)]
    #[derive(Default)]
    struct Action {
        handler: usize,
        flags: libc::c_ulong,
        restorer: usize,
        mask: u64,
    }
    for signal in 1..=64 {
        // The C library refuses its own two (32 and 33), which its posix_spawn leaves ignored.
        // SAFETY: the default action needs no handler; SIGKILL and SIGSTOP are refused, harmlessly.
        unsafe {
            let default = Action::default();
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, 0usize, size_of::<u64>());
        }
    }
    set_signal_mask(0).map(drop)
}

/// Replaces the mask of blocked signals (bit n - 1 is signal n) and returns the old one.
pub fn set_signal_mask(mask: u64) -> io::Result<u64> {
    let mut old = 0u64;
    // SAFETY: the kernel's own call takes masks of eight bytes; both live across the call.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut old, 8usize)
    })?;
    Ok(old)
}

/// Sends any signal, real-time ones included, to the process of a pidfd.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor lives, and there is no siginfo to be read.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, 0usize, 0u32)
    })
    .map(drop)
}

/// Waits for one of the signals in `mask`, which must be blocked.
pub fn wait_for_signal(mask: u64) -> io::Result<i32> {
    // SAFETY: neither details nor a timeout are asked for.
    let signal = check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const mask,
            std::ptr::null::<libc::siginfo_t>(),
            std::ptr::null::<libc::timespec>(),
            8usize,
        )
    })?;
    Ok(signal as i32)
}

/// How many bytes (with the kernel's overhead) a Unix socket's peer has not read yet.
pub fn unread_by_peer(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one int; TIOCOUTQ is SIOCOUTQ's number.
    check(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) }.into())?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Sends a signal; a negative `pid` is a process group.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::kill(pid, signal) }.into())?;
    Ok(())
}

/// Reaps one ended child: its pid and raw wait status. `None` where none has ended yet.
pub fn reap() -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }.into())?;
    Ok((pid > 0).then_some((pid as i32, status)))
}

/// Waits for the end of a certain child and reaps it.
pub fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into())?;
    Ok(status)
}

/// Sets the file mode creation mask.
pub fn umask(mask: u32) {
    // SAFETY: has no preconditions and cannot fail.
    unsafe { libc::umask(mask) };
}

/// Sets the foreground process group of the terminal on fd `terminal`.
pub fn set_foreground_group(terminal: BorrowedFd<'_>, group: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), group) }.into())?;
    Ok(())
}
