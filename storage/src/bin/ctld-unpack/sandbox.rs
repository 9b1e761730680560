//! What the worker gives up before it reads the first byte of a layer.
//!
//! 1. an own mount namespace whose root *is* the staging directory, with nothing else mounted;
//! 2. own network and System V namespaces, empty;
//! 3. all capabilities but those for making files (`SYS_ADMIN` is among them: the kernel asks for it to
//!    write `trusted.overlay.opaque`; what else it allows, the filter forbids);
//! 4. `no_new_privs`, limits on memory, file size and descriptors;
//! 5. a seccomp filter that lets through only what unpacking needs.

use std::path::Path;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::failure::Failure;
use crate::sys;

/// Bytes of memory that the worker may have; a hostile layer that needs more fails.
const MEMORY_BYTES: u64 = 240 << 20;

/// Goes in. `staging` becomes `/`.
pub fn enter(staging: &Path, file_bytes: u64) -> Result<(), Failure> {
    let step = |what: &'static str| move |error| Failure::local(format!("sandbox: {what}: {error}"));
    let sys_step =
        |what: &'static str| move |error: std::io::Error| Failure::local(format!("sandbox: {what}: {error}"));
    sys::close_inherited().map_err(sys_step("close_range"))?;
    rustix::process::umask(Mode::empty());
    sys::unshare_namespaces().map_err(sys_step("unshare"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(step("private mounts"))?;
    rustix::mount::mount_bind(staging, staging).map_err(step("bind"))?;
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_remount(staging, flags, "").map_err(step("remount"))?;
    rustix::process::chdir(staging).map_err(step("chdir"))?;
    rustix::process::pivot_root(".", ".").map_err(step("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(step("umount"))?;
    rustix::process::chdir("/").map_err(step("chdir"))?;

    let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
    for (resource, value) in [
        (Resource::Data, MEMORY_BYTES),
        (Resource::Fsize, file_bytes),
        (Resource::Nofile, 64),
        (Resource::Core, 0),
    ] {
        rustix::process::setrlimit(resource, limit(value)).map_err(step("setrlimit"))?;
    }

    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::MKNOD
        | CapabilitySet::SETFCAP
        | CapabilitySet::SYS_ADMIN;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(step("capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(step("no_new_privs"))?;
    sys::install_filter(&mut filter()).map_err(sys_step("seccomp"))
}

/// What unpacking calls, the allocator, threads and the runtime included.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_fsetxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The filter: `EPERM` for all else; `clone` makes threads only, and `clone3`, whose arguments a filter
/// cannot read, does not exist, upon which the C library uses `clone`.
fn filter() -> Vec<libc::sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const BITS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let number = |call: libc::c_long| u32::try_from(call).expect("system calls have small numbers");
    let mut program = vec![
        // seccomp_data: number at 0, architecture at 4, the first argument at 16.
        step(LOAD, 4),
        jump(EQUAL, ARCHITECTURE, 1, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, 0),
        jump(EQUAL, number(libc::SYS_clone3), 0, 1),
        step(RETURN, errno(libc::ENOSYS)),
        jump(EQUAL, number(libc::SYS_clone), 0, 4),
        step(LOAD, 16),
        jump(BITS, libc::CLONE_THREAD.unsigned_abs(), 0, 1),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
        step(RETURN, errno(libc::EPERM)),
    ];
    for call in ALLOWED {
        program.push(jump(EQUAL, number(*call), 0, 1));
        program.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
    }
    program.push(step(RETURN, errno(libc::EPERM)));
    program
}
