//! Device rules: lines for v1's `devices.allow`, an eBPF program for v2.

use serde::{Deserialize, Serialize};

/// What kind of node a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum NodeKind {
    Any,
    Character,
    Block,
}

/// Allows or denies some access to some devices; the last rule that applies decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Or deny.
    pub allow: bool,
    /// Character, block or both.
    pub kind: NodeKind,
    /// `None` is any.
    pub major: Option<u32>,
    /// `None` is any.
    pub minor: Option<u32>,
    /// Some of `rwm`.
    pub access: String,
}

impl DeviceRule {
    /// File and text for v1.
    pub fn v1_line(&self) -> (&'static str, String) {
        let file = if self.allow { "devices.allow" } else { "devices.deny" };
        let kind = match self.kind {
            NodeKind::Any => return (file, "a".into()),
            NodeKind::Character => 'c',
            NodeKind::Block => 'b',
        };
        let number = |number: Option<u32>| number.map_or("*".into(), |n| n.to_string());
        (file, format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.access))
    }

    fn is_blanket(&self) -> bool {
        self.kind == NodeKind::Any && self.major.is_none() && self.minor.is_none() && self.access.len() == 3
    }

    fn access_bits(&self) -> u32 {
        let bit = |letter, bit| if self.access.contains(letter) { bit } else { 0 };
        // BPF_DEVCG_ACC_MKNOD, READ, WRITE
        bit('m', 1) | bit('r', 2) | bit('w', 4)
    }
}

/// One eBPF instruction as the kernel's 64-bit word (little endian: code, registers, offset, value).
fn instruction(code: u8, dst: u8, src: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(dst | src << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(value as u32) << 32
}

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_W | BPF_MEM
const MOVE32_REGISTER: u8 = 0xbc;
const MOVE64: u8 = 0xb7;
const AND32: u8 = 0x54;
const RIGHT_SHIFT32: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// The program for a list of rules (`BPF_PROG_TYPE_CGROUP_DEVICE`); what no rule allows is denied.
///
/// Registers: r2 kind, r3 access, r4 major, r5 minor. Rules are tried from the last to the first and
/// the first that fits answers, which is the same as the last that applies deciding.
pub fn program(rules: &[DeviceRule]) -> Vec<u64> {
    let mut out = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(AND32, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 3, 1, 0, 0),
        instruction(RIGHT_SHIFT32, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    let answer = |allow: bool| [instruction(MOVE64, 0, 0, 0, allow.into()), instruction(EXIT, 0, 0, 0, 0)];
    for rule in rules.iter().rev() {
        if rule.is_blanket() {
            out.extend(answer(rule.allow));
            return out;
        }
        // The tests, each followed by a jump over what remains; offsets are filled in afterwards.
        let mut tests = vec![];
        match rule.kind {
            NodeKind::Any => {}
            NodeKind::Block => tests.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, 1)),
            NodeKind::Character => tests.push(instruction(JUMP_NOT_EQUAL, 2, 0, 0, 2)),
        }
        if rule.access_bits() != 7 {
            tests.push(instruction(MOVE32_REGISTER, 1, 3, 0, 0));
            tests.push(instruction(AND32, 1, 0, 0, rule.access_bits() as i32));
            // An allowing rule must cover all that is asked for, a denying one any of it.
            if rule.allow {
                tests.push(instruction(JUMP_NOT_EQUAL_REGISTER, 1, 3, 0, 0));
            } else {
                tests.push(instruction(0x15, 1, 0, 0, 0)); // equal to none of it: not this rule
            }
        }
        if let Some(major) = rule.major {
            tests.push(instruction(JUMP_NOT_EQUAL, 4, 0, 0, major as i32));
        }
        if let Some(minor) = rule.minor {
            tests.push(instruction(JUMP_NOT_EQUAL, 5, 0, 0, minor as i32));
        }
        let total = tests.len() + 2;
        for (at, test) in tests.iter().enumerate() {
            let is_jump = matches!(*test as u8, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER | 0x15);
            let skip = if is_jump { (total - at - 1) as u64 } else { 0 };
            out.push(test | skip << 16);
        }
        out.extend(answer(rule.allow));
    }
    out.extend(answer(false));
    out
}
