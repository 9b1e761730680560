//! Compilation of a [`Profile`] to classic BPF (seccomp(2), linux/filter.h).
//!
//! Two deliberate rules of the compiled filter:
//! - Calls with a higher number than any the profile names answer ENOSYS where the default is to
//!   refuse: a C library that tries a newer call first then falls back, instead of failing on EPERM.
//! - x32 calls answer ENOSYS, as they do on kernels without that ABI; every other foreign
//!   architecture ends the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use super::Filter;
use super::profile::{Action, Compare, Condition, Profile};
use crate::spec::SpecError;
use crate::sys::process::BpfInstruction;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The kernel's limit (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// Compiles a policy for this machine's architecture (x86_64).
pub fn compile(profile: &Profile) -> Result<Filter, SpecError> {
    let native = table(profile, numbers(Abi::X86_64));
    let mut program = vec![load(OFFSET_ARCH)];
    let mut native_code = vec![load(OFFSET_NUMBER), jump_if(JUMP_GREATER_OR_EQUAL, X32_BIT, 0, 1)];
    native_code.push(answer(Action::Errno(libc::ENOSYS as u32)));
    emit_tree(&native, &mut native_code);
    let foreign_code = if profile.i386 {
        let mut code = vec![jump_if(JUMP_EQUAL, AUDIT_ARCH_I386, 1, 0), answer(Action::KillProcess)];
        code.push(load(OFFSET_NUMBER));
        emit_tree(&table(profile, numbers(Abi::I386)), &mut code);
        code
    } else {
        vec![answer(Action::KillProcess)]
    };
    program.push(jump_if(JUMP_EQUAL, AUDIT_ARCH_X86_64, 1, 0));
    program.push(BpfInstruction { code: JUMP, jump_true: 0, jump_false: 0, k: native_code.len() as u32 });
    program.extend(native_code);
    program.extend(foreign_code);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SpecError::Invalid(format!(
            "invalid seccomp profile: it needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            program.len()
        )));
    }
    Ok(Filter { instructions: program, flags: profile.flags })
}

enum Abi {
    X86_64,
    I386,
}

/// System call numbers by name.
fn numbers(abi: Abi) -> &'static HashMap<&'static str, u32> {
    static X86_64: OnceLock<HashMap<&'static str, u32>> = OnceLock::new();
    static I386: OnceLock<HashMap<&'static str, u32>> = OnceLock::new();
    match abi {
        Abi::X86_64 => X86_64
            .get_or_init(|| syscalls::x86_64::Sysno::iter().map(|s| (s.name(), s.id() as u32)).collect()),
        Abi::I386 => {
            I386.get_or_init(|| syscalls::x86::Sysno::iter().map(|s| (s.name(), s.id() as u32)).collect())
        }
    }
}

/// What happens to one call: the alternatives in order, then the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    alternatives: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

/// Ranges of call numbers with the same decision: each begins at its number and ends at the next
/// one's; the first begins at 0.
fn table(profile: &Profile, numbers: &HashMap<&'static str, u32>) -> Vec<(u32, Decision)> {
    let plain = |action| Decision { alternatives: vec![], otherwise: action };
    let mut by_number: BTreeMap<u32, Decision> = BTreeMap::new();
    let mut settled: BTreeMap<u32, ()> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| numbers.get(name.as_str())) {
            let decision = by_number.entry(*number).or_insert_with(|| plain(profile.default_action));
            // A rule without conditions outweighs those with some; of two, the first counts. One
            // that only repeats the default says nothing.
            if settled.contains_key(number) {
                continue;
            }
            if !rule.conditions.is_empty() {
                decision.alternatives.push((rule.conditions.clone(), rule.action));
            } else if rule.action != profile.default_action {
                *decision = plain(rule.action);
                settled.insert(*number, ());
            }
        }
    }
    let beyond = match profile.default_action {
        Action::Allow | Action::Log | Action::Trace(_) => profile.default_action,
        _ => Action::Errno(libc::ENOSYS as u32),
    };
    let mut ranges: Vec<(u32, Decision)> = vec![];
    let mut next = 0;
    let mut push = |start: u32, decision: Decision| {
        if ranges.last().is_none_or(|(_, last)| *last != decision) {
            ranges.push((start, decision));
        }
    };
    for (number, decision) in by_number {
        if number > next {
            push(next, plain(profile.default_action));
        }
        push(number, decision);
        next = number + 1;
    }
    push(next, plain(beyond));
    ranges
}

fn emit_tree(ranges: &[(u32, Decision)], program: &mut Vec<BpfInstruction>) {
    match ranges {
        [] => {}
        [(_, decision)] => emit_decision(decision, program),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let mut below = vec![];
            emit_tree(low, &mut below);
            let start = high[0].0;
            if let Ok(skip) = u8::try_from(below.len()) {
                program.push(jump_if(JUMP_GREATER_OR_EQUAL, start, skip, 0));
            } else {
                program.push(jump_if(JUMP_GREATER_OR_EQUAL, start, 0, 1));
                program.push(BpfInstruction {
                    code: JUMP,
                    jump_true: 0,
                    jump_false: 0,
                    k: below.len() as u32,
                });
            }
            program.extend(below);
            emit_tree(high, program);
        }
    }
}

fn emit_decision(decision: &Decision, program: &mut Vec<BpfInstruction>) {
    for (conditions, action) in &decision.alternatives {
        let blocks: Vec<Vec<Step>> = conditions.iter().map(steps).collect();
        // Every failed condition leads behind the alternative's answer.
        let end: usize = blocks.iter().map(Vec::len).sum::<usize>() + 1;
        let mut at = 0;
        for block in blocks {
            let block_end = at + block.len();
            for step in block {
                let skip = |target: Target| match target {
                    Target::Next => 0,
                    Target::Holds => (block_end - at - 1) as u8,
                    Target::Fails => (end - at - 1) as u8,
                };
                program.push(match step {
                    Step::Plain(instruction) => instruction,
                    Step::Test { code, k, yes, no } => {
                        BpfInstruction { code, jump_true: skip(yes), jump_false: skip(no), k }
                    }
                });
                at += 1;
            }
        }
        program.push(answer(*action));
    }
    program.push(answer(decision.otherwise));
}

#[derive(Clone, Copy)]
enum Target {
    Next,
    Holds,
    Fails,
}

enum Step {
    Plain(BpfInstruction),
    Test { code: u16, k: u32, yes: Target, no: Target },
}

/// One comparison of a 64-bit argument in two 32-bit halves, the high one first.
fn steps(condition: &Condition) -> Vec<Step> {
    use Target::{Fails, Holds, Next};
    let offset = OFFSET_ARGS + 8 * u32::from(condition.argument);
    let load_low = || Step::Plain(load(offset));
    let load_high = || Step::Plain(load(offset + 4));
    let and = |k| Step::Plain(BpfInstruction { code: AND, jump_true: 0, jump_false: 0, k });
    let test = |code, k, yes, no| Step::Test { code, k, yes, no };
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    let ordered = |high_greater, high_smaller, code, yes, no| {
        vec![
            load_high(),
            test(JUMP_GREATER, high, high_greater, Next),
            test(JUMP_EQUAL, high, Next, high_smaller),
            load_low(),
            test(code, low, yes, no),
        ]
    };
    match condition.compare {
        Compare::Equal => vec![
            load_high(),
            test(JUMP_EQUAL, high, Next, Fails),
            load_low(),
            test(JUMP_EQUAL, low, Next, Fails),
        ],
        Compare::NotEqual => vec![
            load_high(),
            test(JUMP_EQUAL, high, Next, Holds),
            load_low(),
            test(JUMP_EQUAL, low, Fails, Next),
        ],
        Compare::Greater => ordered(Holds, Fails, JUMP_GREATER, Next, Fails),
        Compare::GreaterOrEqual => ordered(Holds, Fails, JUMP_GREATER_OR_EQUAL, Next, Fails),
        Compare::Less => ordered(Fails, Holds, JUMP_GREATER_OR_EQUAL, Fails, Next),
        Compare::LessOrEqual => ordered(Fails, Holds, JUMP_GREATER, Fails, Next),
        Compare::MaskedEqual { mask } => vec![
            load_high(),
            and((mask >> 32) as u32),
            test(JUMP_EQUAL, high, Next, Fails),
            load_low(),
            and(mask as u32),
            test(JUMP_EQUAL, low, Next, Fails),
        ],
    }
}

fn load(offset: u32) -> BpfInstruction {
    BpfInstruction { code: LOAD, jump_true: 0, jump_false: 0, k: offset }
}

fn jump_if(code: u16, k: u32, jump_true: u8, jump_false: u8) -> BpfInstruction {
    BpfInstruction { code, jump_true, jump_false, k }
}

fn answer(action: Action) -> BpfInstruction {
    let k = match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno & 0xffff,
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::Trace(data) => libc::SECCOMP_RET_TRACE | data & 0xffff,
        Action::Log => libc::SECCOMP_RET_LOG,
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
    };
    BpfInstruction { code: RETURN, jump_true: 0, jump_false: 0, k }
}
