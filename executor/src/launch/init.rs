//! The tiny init of `--init`: process 1 that starts the program as its child, reaps whatever ends up
//! with it, passes signals on, and ends as the program ends. It runs no file of the container.

use crate::sys::process;

/// Signals that are passed on: all but those that are about the init itself.
const FORWARDED: u64 = {
    let mut mask = u64::MAX;
    let own = [
        libc::SIGCHLD,
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    let mut i = 0;
    while i < own.len() {
        mask &= !(1 << (own[i] - 1));
        i += 1;
    }
    mask
};

const CHILD: u64 = 1 << (libc::SIGCHLD - 1);
const TERMINAL: u64 = 1 << (libc::SIGTTIN - 1) | 1 << (libc::SIGTTOU - 1);

/// What has to be blocked before the program is forked, so that no signal is lost.
pub(super) fn block_signals() -> std::io::Result<()> {
    process::set_signal_mask(FORWARDED | CHILD | TERMINAL).map(drop)
}

/// Serves as process 1 until `program` has ended.
pub(super) fn run(program: i32) -> ! {
    // Nothing of the shim's is needed any more, and open pipes would look like output to come.
    process::close_from(0).ok();
    loop {
        while let Ok(Some((pid, status))) = process::reap() {
            if pid == program {
                process::exit_now(exit_code(status));
            }
        }
        match process::wait_for_signal(FORWARDED | CHILD) {
            Ok(libc::SIGCHLD) | Err(_) => {}
            // The program may have ended meanwhile.
            Ok(signal) => process::kill(program, signal).unwrap_or_default(),
        }
    }
}

fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}
