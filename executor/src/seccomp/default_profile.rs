//! Docker's default seccomp policy: an allow list that grows with the container's capabilities.
//!
//! Differences from Docker 28, all on the strict side: `AF_ALG` sockets are refused (the crypto API
//! is kernel surface that no container needs by default), and on i386 `socketcall(SYS_SOCKET)`
//! answers ENOSYS, since its pointer argument cannot be looked at; the C libraries that know the
//! direct call fall back to it.

use super::profile::{Action, Compare, Condition, Profile, Rule};
use crate::capabilities::CapSet;

/// Allowed whatever the capabilities are.
const ALWAYS: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown \
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex \
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 \
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid \
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
    get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 \
    getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy \
    io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen \
    listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack \
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 \
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe \
    pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
    recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat \
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr \
    sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg \
    sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit \
    set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat \
    shmctl shmdt shmget shutdown sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend \
    socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee \
    tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill \
    truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes \
    vfork vmsplice wait4 waitid waitpid write writev \
    process_vm_readv process_vm_writev ptrace arch_prctl modify_ldt";

/// Allowed with one capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns statmount syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// `personality` values that only choose the ABI's look.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];

/// All `CLONE_NEW*` flags.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const SYS_SOCKET: u64 = 1;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The policy for a container with these capabilities (its bounding set).
pub fn docker_default(capabilities: CapSet) -> Profile {
    let allow = |names: &str, conditions: Vec<Condition>| Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        action: Action::Allow,
        conditions,
    };
    let arg0 = |compare: Compare, value: u64| Condition { argument: 0, compare, value };
    let refuse_family = |family: u64| Rule {
        names: vec!["socket".into()],
        action: Action::Errno(EPERM),
        conditions: vec![arg0(Compare::MaskedEqual { mask: 0xffff_ffff }, family)],
    };
    let mut rules = vec![
        allow(ALWAYS, vec![]),
        // The kernel looks at the low half of the argument only, and so must the refusals.
        refuse_family(AF_ALG),
        refuse_family(AF_VSOCK),
        allow("socket", vec![arg0(Compare::NotEqual, AF_ALG)]),
        Rule {
            names: vec!["socketcall".into()],
            action: Action::Errno(ENOSYS),
            conditions: vec![arg0(Compare::Equal, SYS_SOCKET)],
        },
        allow("socketcall", vec![arg0(Compare::NotEqual, SYS_SOCKET)]),
    ];
    rules.extend(PERSONALITIES.map(|value| allow("personality", vec![arg0(Compare::Equal, value)])));
    for (capability, names) in BY_CAPABILITY {
        if capabilities.has_name(capability) {
            rules.push(allow(names, vec![]));
        }
    }
    if !capabilities.has_name("SYS_ADMIN") {
        rules.push(allow("clone", vec![arg0(Compare::MaskedEqual { mask: NEW_NAMESPACES }, 0)]));
        rules.push(Rule { names: vec!["clone3".into()], action: Action::Errno(ENOSYS), conditions: vec![] });
    }
    Profile { default_action: Action::Errno(EPERM), i386: true, flags: 0, rules }
}
