//! Seccomp policies as data, and Docker's JSON form of them.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscallBuilder,
};
use serde::Deserialize;

use crate::capabilities::CapSet;
use crate::spec::SpecError;

/// A policy: what happens to each system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// For calls that no rule names.
    pub default_action: Action,
    /// Whether 32-bit (i386) calls are judged by the rules; otherwise they kill the process.
    pub i386: bool,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
    /// The first rule that names a call and whose conditions hold decides.
    pub rules: Vec<Rule>,
}

/// What happens to some calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Names of system calls; those an architecture does not have are left out there.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

/// A filter's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call is made.
    Allow,
    /// It fails with this error number.
    Errno(u32),
    /// SIGSYS to the thread.
    Trap,
    /// The tracer decides.
    Trace(u32),
    /// It is made and logged.
    Log,
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u64,
}

/// Unsigned 64-bit comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & mask == value`
    MaskedEqual {
        mask: u64,
    },
}

fn invalid(text: impl std::fmt::Display) -> SpecError {
    SpecError::Invalid(format!("invalid seccomp profile: {text}"))
}

/// Docker's profile file. Fields that are not known are refused rather than passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<FileRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileRule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<FileArg>>,
    #[serde(default)]
    includes: Option<Selector>,
    #[serde(default)]
    excludes: Option<Selector>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileArg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile in Docker's JSON form for a container with these capabilities.
/// `kernel` is the running kernel's release, for `minKernel`.
pub fn parse(json: &str, capabilities: CapSet, kernel: &str) -> Result<Profile, SpecError> {
    let file: File = serde_json::from_str(json)
        .map_err(|error| SpecError::Invalid(format!("decoding seccomp profile failed: {error}")))?;
    if file.listener_path.is_some() || file.listener_metadata.is_some() {
        return Err(invalid("listenerPath (user notification) is not supported"));
    }
    let i386 = match (&file.architectures, &file.arch_map) {
        (Some(_), Some(_)) => return Err(invalid("both 'architectures' and 'archMap' were specified")),
        (Some(list), None) => list.iter().any(|arch| arch == "SCMP_ARCH_X86"),
        (None, Some(map)) => map
            .iter()
            .filter(|entry| entry.architecture == "SCMP_ARCH_X86_64")
            .any(|entry| entry.sub_architectures.iter().flatten().any(|arch| arch == "SCMP_ARCH_X86")),
        (None, None) => false,
    };
    let mut flags = 0;
    for flag in file.flags.iter().flatten() {
        flags |= flag_bit(flag).ok_or_else(|| invalid(format_args!("flag {flag} is not supported")))?;
    }
    let mut rules = vec![];
    for rule in file.syscalls.into_iter().flatten() {
        let selected = rule.includes.as_ref().is_none_or(|s| s.all_hold(capabilities, kernel))
            && !rule.excludes.as_ref().is_some_and(|s| s.any_holds(capabilities, kernel));
        let names = match (rule.name, rule.names) {
            (Some(_), Some(_)) => return Err(invalid("both 'name' and 'names' were specified")),
            (Some(name), None) => vec![name],
            (None, names) => names.unwrap_or_default(),
        };
        let action = action(&rule.action, rule.errno_ret)?;
        let conditions = rule.args.into_iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
        if selected {
            push(&mut rules, names, action, conditions);
        }
    }
    Ok(Profile { default_action: action(&file.default_action, file.default_errno_ret)?, i386, flags, rules })
}

/// libseccomp cannot AND two comparisons of one argument, so runtimes make such a rule one of
/// alternatives; here the same, so that profiles mean what they mean elsewhere.
fn push(rules: &mut Vec<Rule>, names: Vec<String>, action: Action, conditions: Vec<Condition>) {
    let twice = (0..6).any(|index| conditions.iter().filter(|c| c.argument == index).count() > 1);
    if twice {
        rules.extend(conditions.into_iter().map(|c| Rule {
            names: names.clone(),
            action,
            conditions: vec![c],
        }));
    } else {
        rules.push(Rule { names, action, conditions });
    }
}

impl Selector {
    fn parts(&self, capabilities: CapSet, kernel: &str) -> impl Iterator<Item = bool> {
        let arch =
            self.arches.as_ref().map(|list| list.iter().any(|arch| arch == "amd64" || arch == "x86_64"));
        let kernel = self.min_kernel.as_ref().map(|min| version(kernel) >= version(min));
        let caps: Vec<bool> = self.caps.iter().flatten().map(|cap| capabilities.has_name(cap)).collect();
        arch.into_iter().chain(kernel).chain(caps)
    }

    fn all_hold(&self, capabilities: CapSet, kernel: &str) -> bool {
        self.parts(capabilities, kernel).all(|holds| holds)
    }

    fn any_holds(&self, capabilities: CapSet, kernel: &str) -> bool {
        self.parts(capabilities, kernel).any(|holds| holds)
    }
}

/// The first two numbers of a kernel release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn flag_bit(flag: &str) -> Option<u64> {
    Some(match flag {
        "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
        "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        _ => return None,
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, SpecError> {
    let errno_or_eperm = errno.unwrap_or(libc::EPERM as u32);
    if errno_or_eperm > 4095 {
        return Err(invalid(format_args!("errnoRet {errno_or_eperm} is out of range")));
    }
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno_or_eperm),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(errno_or_eperm),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => return Err(invalid(format_args!("action {other:?} is not supported"))),
    })
}

fn condition(arg: FileArg) -> Result<Condition, SpecError> {
    if arg.index > 5 {
        return Err(invalid(format_args!("argument index {} is out of range", arg.index)));
    }
    let (compare, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Compare::Equal, arg.value),
        "SCMP_CMP_NE" => (Compare::NotEqual, arg.value),
        "SCMP_CMP_LT" => (Compare::Less, arg.value),
        "SCMP_CMP_LE" => (Compare::LessOrEqual, arg.value),
        "SCMP_CMP_GT" => (Compare::Greater, arg.value),
        "SCMP_CMP_GE" => (Compare::GreaterOrEqual, arg.value),
        "SCMP_CMP_MASKED_EQ" => (Compare::MaskedEqual { mask: arg.value }, arg.value_two),
        other => return Err(invalid(format_args!("operator {other:?} is not supported"))),
    };
    Ok(Condition { argument: arg.index, compare, value })
}

/// The profile as the runtime specification has it.
pub fn to_oci(profile: &Profile) -> Result<LinuxSeccomp, SpecError> {
    let broken = |error: oci_spec::OciSpecError| invalid(error);
    let mut syscalls = vec![];
    for rule in &profile.rules {
        let mut args = vec![];
        for condition in &rule.conditions {
            let (op, value, value_two) = match condition.compare {
                Compare::Equal => (LinuxSeccompOperator::ScmpCmpEq, condition.value, None),
                Compare::NotEqual => (LinuxSeccompOperator::ScmpCmpNe, condition.value, None),
                Compare::Less => (LinuxSeccompOperator::ScmpCmpLt, condition.value, None),
                Compare::LessOrEqual => (LinuxSeccompOperator::ScmpCmpLe, condition.value, None),
                Compare::Greater => (LinuxSeccompOperator::ScmpCmpGt, condition.value, None),
                Compare::GreaterOrEqual => (LinuxSeccompOperator::ScmpCmpGe, condition.value, None),
                Compare::MaskedEqual { mask } => {
                    (LinuxSeccompOperator::ScmpCmpMaskedEq, mask, Some(condition.value))
                }
            };
            let arg =
                LinuxSeccompArgBuilder::default().index(usize::from(condition.argument)).value(value).op(op);
            let arg = if let Some(two) = value_two { arg.value_two(two) } else { arg };
            args.push(arg.build().map_err(broken)?);
        }
        let (action, errno) = oci_action(rule.action);
        let mut syscall = LinuxSyscallBuilder::default().names(rule.names.clone()).action(action);
        if let Some(errno) = errno {
            syscall = syscall.errno_ret(errno);
        }
        if !args.is_empty() {
            syscall = syscall.args(args);
        }
        syscalls.push(syscall.build().map_err(broken)?);
    }
    let mut flags = vec![];
    for (bit, flag) in OCI_FLAGS {
        if profile.flags & bit != 0 {
            flags.push(flag);
        }
    }
    let architectures =
        if profile.i386 { vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86] } else { vec![Arch::ScmpArchX86_64] };
    let (default_action, errno) = oci_action(profile.default_action);
    let mut seccomp = LinuxSeccompBuilder::default()
        .default_action(default_action)
        .architectures(architectures)
        .syscalls(syscalls);
    if let Some(errno) = errno {
        seccomp = seccomp.default_errno_ret(errno);
    }
    if !flags.is_empty() {
        seccomp = seccomp.flags(flags);
    }
    seccomp.build().map_err(broken)
}

const OCI_FLAGS: [(u64, LinuxSeccompFilterFlag); 3] = [
    (libc::SECCOMP_FILTER_FLAG_TSYNC, LinuxSeccompFilterFlag::SeccompFilterFlagTsync),
    (libc::SECCOMP_FILTER_FLAG_LOG, LinuxSeccompFilterFlag::SeccompFilterFlagLog),
    (libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow),
];

fn oci_action(action: Action) -> (LinuxSeccompAction, Option<u32>) {
    match action {
        Action::Allow => (LinuxSeccompAction::ScmpActAllow, None),
        Action::Errno(errno) => (LinuxSeccompAction::ScmpActErrno, Some(errno)),
        Action::Trap => (LinuxSeccompAction::ScmpActTrap, None),
        Action::Trace(data) => (LinuxSeccompAction::ScmpActTrace, Some(data)),
        Action::Log => (LinuxSeccompAction::ScmpActLog, None),
        Action::KillThread => (LinuxSeccompAction::ScmpActKillThread, None),
        Action::KillProcess => (LinuxSeccompAction::ScmpActKillProcess, None),
    }
}

/// The other way, for specifications that come from elsewhere.
pub fn from_oci(seccomp: &LinuxSeccomp) -> Result<Profile, SpecError> {
    if seccomp.listener_path().is_some() {
        return Err(invalid("listenerPath (user notification) is not supported"));
    }
    let mut flags = 0;
    for flag in seccomp.flags().iter().flatten() {
        let known = OCI_FLAGS.iter().find(|(_, known)| known == flag);
        flags |= known.ok_or_else(|| invalid(format_args!("flag {flag:?} is not supported")))?.0;
    }
    let mut rules = vec![];
    for syscall in seccomp.syscalls().iter().flatten() {
        let mut conditions = vec![];
        for arg in syscall.args().iter().flatten() {
            let (compare, value) = match arg.op() {
                LinuxSeccompOperator::ScmpCmpEq => (Compare::Equal, arg.value()),
                LinuxSeccompOperator::ScmpCmpNe => (Compare::NotEqual, arg.value()),
                LinuxSeccompOperator::ScmpCmpLt => (Compare::Less, arg.value()),
                LinuxSeccompOperator::ScmpCmpLe => (Compare::LessOrEqual, arg.value()),
                LinuxSeccompOperator::ScmpCmpGt => (Compare::Greater, arg.value()),
                LinuxSeccompOperator::ScmpCmpGe => (Compare::GreaterOrEqual, arg.value()),
                LinuxSeccompOperator::ScmpCmpMaskedEq => {
                    (Compare::MaskedEqual { mask: arg.value() }, arg.value_two().unwrap_or(0))
                }
            };
            let argument = u8::try_from(arg.index()).ok().filter(|index| *index <= 5);
            let argument = argument.ok_or_else(|| invalid("argument index is out of range"))?;
            conditions.push(Condition { argument, compare, value });
        }
        let action = from_oci_action(syscall.action(), syscall.errno_ret())?;
        push(&mut rules, syscall.names().clone(), action, conditions);
    }
    Ok(Profile {
        default_action: from_oci_action(seccomp.default_action(), seccomp.default_errno_ret())?,
        i386: seccomp.architectures().iter().flatten().any(|arch| *arch == Arch::ScmpArchX86),
        flags,
        rules,
    })
}

fn from_oci_action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Action, SpecError> {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActErrno => Action::Errno(errno),
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActTrace => Action::Trace(errno),
        LinuxSeccompAction::ScmpActLog => Action::Log,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActNotify => return Err(invalid("SCMP_ACT_NOTIFY is not supported")),
    })
}
