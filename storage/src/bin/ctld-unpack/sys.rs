//! System calls without a safe wrapper.

use std::io;

/// Leaves the host's mounts, network and System V objects.
pub fn unshare_namespaces() -> io::Result<()> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
    // SAFETY: no pointers; the process has one thread, so that nothing shares its file system state.
    check(unsafe { libc::unshare(flags) }.into())
}

/// Closes every descriptor above stderr.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: no pointers; nothing of this process is open above 2 at this point.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) })
}

/// Installs a seccomp filter for this process and all its threads to come. Needs `no_new_privs`.
pub fn install_filter(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `program` and the slice that it points to live through the call; the kernel copies both.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u32, std::ptr::from_ref(&program))
    })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
