//! The language of GPU kernels: one text for Metal, CUDA and the [`emulator`](crate::emulator).
//!
//! `docs/kernel-dialect.md` in the repository is its manual.

use crate::KernelSource;

/// What every backend puts before a kernel's text.
pub const GPU_HEADER: &str = include_str!("../gpu/gpu.h");

/// The whole text to compile: the header, then the kernel's text, whose lines compilers name as lines of
/// `kernel` unless the text says otherwise itself.
pub fn whole_text(text: &str) -> String {
    [GPU_HEADER, "#line 1 \"kernel\"\n", text].concat()
}

impl KernelSource<'_> {
    /// True when there is a text for GPUs.
    pub fn has_gpu_text(&self) -> bool {
        !self.gpu.trim().is_empty()
    }
}

/// What a kernel's `FAULT(code, a, b, c)` says; the codes are those of the header.
pub fn fault_message(record: [u32; 4]) -> String {
    match record {
        [1, position, tokens, _] => format!("position {position} is outside the cache of {tokens} tokens"),
        [2, index, row, rows] => format!("ids[{index}] is {row}, the table has {rows} rows"),
        [3, bits, ..] => format!("the largest logit is {}, needed a finite number", f32::from_bits(bits)),
        [code, a, b, c] => format!("fault {code} ({a}, {b}, {c})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_header() {
        for (code, name) in [(1, "FAULT_POSITION"), (2, "FAULT_ROW"), (3, "FAULT_NO_LOGIT")] {
            assert!(GPU_HEADER.contains(&format!("{name} = {code}")), "{name}");
            assert!(!fault_message([code, 0, 0, 0]).starts_with("fault"), "{name} has a text");
        }
        assert_eq!(fault_message([77, 1, 2, 3]), "fault 77 (1, 2, 3)");
    }
}
