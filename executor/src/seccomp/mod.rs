//! Seccomp: policies ([`profile`]), Docker's default one ([`default_profile`]), and their
//! compilation to classic BPF ([`compile`]).
//!
//! The filter first looks at the architecture, then finds the system call by binary search over
//! ranges of numbers that share an answer. Calls without conditions are decided by architecture and
//! number alone, which lets the kernel cache the answer as one bit (since Linux 5.11).

pub mod compile;
pub mod default_profile;
pub mod profile;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sys::process::BpfInstruction;

/// A compiled filter. Serialised as hexadecimal, eight bytes an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub instructions: Vec<BpfInstruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    flags: u64,
    program: String,
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut program = String::with_capacity(self.instructions.len() * 16);
        for i in &self.instructions {
            let word = u64::from(i.code) << 48
                | u64::from(i.jump_true) << 40
                | u64::from(i.jump_false) << 32
                | u64::from(i.k);
            for shift in (0..16).rev() {
                program.push(char::from(HEX[(word >> (shift * 4) & 15) as usize]));
            }
        }
        Wire { flags: self.flags, program }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let mut instructions = Vec::with_capacity(wire.program.len() / 16);
        for chunk in wire.program.as_bytes().chunks(16) {
            let word = std::str::from_utf8(chunk)
                .ok()
                .filter(|text| text.len() == 16)
                .and_then(|text| u64::from_str_radix(text, 16).ok())
                .ok_or_else(|| serde::de::Error::custom("broken seccomp program"))?;
            instructions.push(BpfInstruction {
                code: (word >> 48) as u16,
                jump_true: (word >> 40) as u8,
                jump_false: (word >> 32) as u8,
                k: word as u32,
            });
        }
        Ok(Self { instructions, flags: wire.flags })
    }
}

#[cfg(test)]
mod tests;
