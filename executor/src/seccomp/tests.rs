//! The compiled filters, run by an interpreter and compared with the policy's plain meaning.

use proptest::prelude::*;

use super::Filter;
use super::compile::compile;
use super::default_profile::docker_default;
use super::profile::{Action, Compare, Condition, Profile, Rule, from_oci, parse, to_oci};
use crate::capabilities::CapSet;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;

const fn errno(number: u32) -> u32 {
    0x5_0000 | number
}

/// Classic BPF as the kernel runs it, on a `struct seccomp_data`.
fn run(filter: &Filter, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = vec![];
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let i = filter.instructions[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { i.jump_true } else { i.jump_false });
        match i.code {
            0x20 => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += jump(a == i.k),
            0x25 => at += jump(a > i.k),
            0x35 => at += jump(a >= i.k),
            0x06 => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn call(name: &str) -> u32 {
    syscalls::x86_64::Sysno::iter().find(|s| s.name() == name).unwrap().id() as u32
}

fn call_i386(name: &str) -> u32 {
    syscalls::x86::Sysno::iter().find(|s| s.name() == name).unwrap().id() as u32
}

fn default() -> Filter {
    compile(&docker_default(CapSet::docker_default())).unwrap()
}

#[test]
fn the_default_profile_by_example() {
    let filter = default();
    let native = |name: &str, args: &[u64]| {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        run(&filter, X86_64, call(name), all)
    };
    for name in ["read", "execve", "openat2", "chroot", "ptrace", "capset", "clock_gettime", "close_range"] {
        assert_eq!(native(name, &[]), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "setns",
        "bpf",
        "kexec_load",
        "init_module",
        "reboot",
        "io_uring_setup",
        "keyctl",
        "open_by_handle_at",
    ] {
        assert_eq!(native(name, &[]), errno(1), "{name}");
    }
    assert_eq!(native("clone3", &[]), errno(38));
    assert_eq!(native("clone", &[0x0001_0f00]), ALLOW);
    assert_eq!(native("clone", &[0x1000_0000]), errno(1), "a user namespace");
    assert_eq!(native("personality", &[0x20008]), ALLOW);
    assert_eq!(native("personality", &[0x0040_0000]), errno(1), "READ_IMPLIES_EXEC");
    for family in [1, 2, 10, 16] {
        assert_eq!(native("socket", &[family]), ALLOW);
    }
    for family in [38, 40] {
        // The kernel ignores the high half of the register, and so must the filter's refusal.
        for high in [0, 1 << 32, 0xffff_ffff << 32] {
            assert_eq!(native("socket", &[family | high]), errno(1), "{family} {high:#x}");
        }
    }
    // Unknown and newer numbers are "not implemented", so that libraries fall back.
    assert_eq!(run(&filter, X86_64, 5000, [0; 6]), errno(38));
}

#[test]
fn other_abis() {
    let filter = default();
    let i386 = |name: &str, arg: u64| run(&filter, I386, call_i386(name), [arg, 0, 0, 0, 0, 0]);
    for name in ["read", "mmap2", "_llseek", "fcntl64", "clock_gettime64", "set_thread_area"] {
        assert_eq!(i386(name, 0), ALLOW, "{name}");
    }
    assert_eq!((i386("mount", 0), i386("socket", 38), i386("socket", 2)), (errno(1), errno(1), ALLOW));
    assert_eq!(
        (i386("socketcall", 1), i386("socketcall", 3)),
        (errno(38), ALLOW),
        "no sockets but by socket(2)"
    );
    for number in [0, 41, 59] {
        assert_eq!(run(&filter, X86_64, 0x4000_0000 | number, [38, 0, 0, 0, 0, 0]), errno(38), "x32");
    }
    assert_eq!(run(&filter, 0xc000_00b7, 0, [0; 6]), KILL, "another architecture");
}

#[test]
fn capabilities_open_calls() {
    let filter = compile(&docker_default(CapSet::all())).unwrap();
    for name in ["mount", "unshare", "clone3", "bpf", "open_by_handle_at", "reboot"] {
        assert_eq!(run(&filter, X86_64, call(name), [0; 6]), ALLOW, "{name}");
    }
    assert_eq!(run(&filter, X86_64, call("clone"), [0x1000_0000, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&filter, X86_64, call("socket"), [38, 0, 0, 0, 0, 0]), errno(1));
}

#[test]
fn the_default_filter_is_small_and_shallow() {
    let filter = default();
    assert!(filter.instructions.len() < 700, "{}", filter.instructions.len());
}

#[test]
fn docker_json() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[
          {"names":["read"],"action":"SCMP_ACT_ALLOW"},
          {"names":["write"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]},
          {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["umount2"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["open"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
          {"names":["close"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}"#;
    let profile = parse(json, CapSet::docker_default(), "6.1.0-13-amd64").unwrap();
    let filter = compile(&profile).unwrap();
    let native = |name: &str, arg: u64| run(&filter, X86_64, call(name), [arg, 0, 0, 0, 0, 0]);
    assert_eq!([native("read", 0), native("write", 2), native("umount2", 0)], [ALLOW; 3]);
    assert_eq!(["write", "mount", "open", "close"].map(|name| native(name, 0)), [errno(13); 4]);
    assert_eq!(run(&filter, I386, 3, [0; 6]), KILL, "an architecture that the profile leaves out");
}

#[test]
fn what_is_not_known_is_refused() {
    let message = |json: &str| parse(json, CapSet(0), "6.1").unwrap_err().to_string();
    assert!(message("{").starts_with("decoding seccomp profile failed: "));
    assert!(message(r#"{"defaultAction":"SCMP_ACT_ALLOW","colour":1}"#).contains("unknown field `colour`"));
    assert!(message(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).contains("SCMP_ACT_NOTIFY"));
    let op = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG",
        "args":[{"index":0,"value":1,"op":"SCMP_CMP_ODD"}]}]}"#;
    assert!(message(op).contains("SCMP_CMP_ODD"));
    let flags = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}"#;
    assert!(message(flags).contains("SECCOMP_FILTER_FLAG_NEW_LISTENER is not supported"));
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        (1u32..100).prop_map(Action::Errno),
        Just(Action::KillProcess),
        Just(Action::Trap),
        Just(Action::Log),
    ]
}

/// Values whose halves differ in interesting ways.
fn value() -> impl Strategy<Value = u64> {
    let half =
        || prop_oneof![Just(0u32), Just(1), Just(2), Just(0x7fff_ffff), Just(0x8000_0000), Just(u32::MAX)];
    (half(), half()).prop_map(|(high, low)| u64::from(high) << 32 | u64::from(low))
}

fn condition() -> impl Strategy<Value = Condition> {
    let compare = prop_oneof![
        Just(Compare::Equal),
        Just(Compare::NotEqual),
        Just(Compare::Less),
        Just(Compare::LessOrEqual),
        Just(Compare::Greater),
        Just(Compare::GreaterOrEqual),
        value().prop_map(|mask| Compare::MaskedEqual { mask }),
    ];
    (0u8..6, compare, value()).prop_map(|(argument, compare, value)| Condition { argument, compare, value })
}

const NAMES: [&str; 6] = ["read", "write", "close", "futex", "openat", "clone3"];

fn profile() -> impl Strategy<Value = Profile> {
    let rule = (
        proptest::sample::subsequence(NAMES.to_vec(), 1..4),
        action(),
        prop::collection::vec(condition(), 0..3),
    )
        .prop_map(|(names, action, mut conditions)| {
            conditions.dedup_by_key(|c| c.argument);
            if conditions.len() == 2 && conditions[0].argument == conditions[1].argument {
                conditions.pop();
            }
            Rule { names: names.into_iter().map(str::to_owned).collect(), action, conditions }
        });
    (action(), any::<bool>(), prop::collection::vec(rule, 0..12))
        .prop_map(|(default_action, i386, rules)| Profile { default_action, i386, flags: 0, rules })
}

fn holds(condition: &Condition, args: &[u64; 6]) -> bool {
    let argument = args[usize::from(condition.argument)];
    match condition.compare {
        Compare::Equal => argument == condition.value,
        Compare::NotEqual => argument != condition.value,
        Compare::Less => argument < condition.value,
        Compare::LessOrEqual => argument <= condition.value,
        Compare::Greater => argument > condition.value,
        Compare::GreaterOrEqual => argument >= condition.value,
        Compare::MaskedEqual { mask } => argument & mask == condition.value,
    }
}

fn answer(action: Action) -> u32 {
    match action {
        Action::Allow => ALLOW,
        Action::Errno(number) => errno(number),
        Action::KillProcess => KILL,
        Action::Trap => 0x3_0000,
        Action::Log => 0x7ffc_0000,
        other => panic!("{other:?}"),
    }
}

/// The policy's meaning, without any cleverness.
fn meaning(profile: &Profile, name: &str, args: &[u64; 6]) -> u32 {
    let mine = || profile.rules.iter().filter(|rule| rule.names.iter().any(|n| n == name));
    let plain = mine().find(|rule| rule.conditions.is_empty() && rule.action != profile.default_action);
    let conditional =
        mine().find(|rule| !rule.conditions.is_empty() && rule.conditions.iter().all(|c| holds(c, args)));
    answer(plain.or(conditional).map_or(profile.default_action, |rule| rule.action))
}

proptest! {
    #[test]
    fn filters_mean_what_the_policy_says(
        profile in profile(),
        args in prop::collection::vec(prop::array::uniform6(value()), 1..20),
    ) {
        let filter = compile(&profile).unwrap();
        for args in &args {
            for name in NAMES.iter().filter(|n| profile.rules.iter().any(|r| r.names.iter().any(|m| m == *n))) {
                prop_assert_eq!(run(&filter, X86_64, call(name), *args), meaning(&profile, name, args), "{}", name);
            }
        }
        // The journey through the specification and to the shim changes nothing.
        let again = compile(&from_oci(&to_oci(&profile).unwrap()).unwrap()).unwrap();
        prop_assert_eq!(&again, &filter);
        let json = serde_json::to_string(&filter).unwrap();
        prop_assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter);
    }

    #[test]
    fn no_profile_text_panics(text in "[\\[\\]{}:,\"a-zA-Z_0-9 ]{0,200}") {
        drop(parse(&text, CapSet(0), "6.1"));
    }
}
