//! Mistakes that the check must refuse, each planted in a text that it accepts.

use super::Text;

/// The text without mistakes, after the dialect's header.
const SUBJECT: &str = include_str!("subject.gpu.cpp");

/// One mistake.
pub(super) struct Mistake {
    pub(super) what: &'static str,
    /// First occurrence of this ..
    right: &'static str,
    /// .. becomes this.
    wrong: &'static str,
    /// Part of the complaint.
    pub(super) refused_with: &'static str,
}

/// The text that must be accepted.
pub(super) fn subject(header: &str) -> Text {
    Text { name: "subject".to_owned(), text: [header, SUBJECT].concat() }
}

impl Mistake {
    /// The text with the mistake.
    pub(super) fn plant(&self, header: &str) -> Result<Text, String> {
        if !SUBJECT.contains(self.right) {
            return Err(format!("{}: the subject has no `{}`", self.what, self.right));
        }
        let text = [header, &*SUBJECT.replacen(self.right, self.wrong, 1)].concat();
        Ok(Text { name: self.what.to_owned(), text })
    }
}

const fn mistake(what: &'static str, right: &'static str, wrong: &'static str, refused_with: &'static str) -> Mistake {
    Mistake { what, right, wrong, refused_with }
}

const KERNEL: &str = "KERNEL(subject";
const BODY: &str = "  const float sum = tg_sum";
const SUM: &str = "  float sum = 0.0f;";

pub(super) const MISTAKES: &[Mistake] = &[
    mistake("device pointer for a threadgroup pointer", ", partial, lane", ", y, lane", "no matching function"),
    mistake(
        "threadgroup pointer for a device pointer",
        "sum_of_squares(x + u64(tg_id.x)",
        "sum_of_squares(partial + u64(tg_id.x)",
        "no matching function",
    ),
    mistake(
        "pointer without address space",
        "FN float sum_of_squares(const DEVICE float* x",
        "FN float sum_of_squares(const float* x",
        "no matching function",
    ),
    mistake(
        "threadgroup memory into device memory",
        "SHARED(float, partial, 32);",
        "SHARED(float, partial, 32); y = partial;",
        "incompatible type",
    ),
    mistake("write to an input", BODY, "  x[0] = 1.0f; const float sum = tg_sum", "read-only"),
    mistake("double variable", SUM, "  double sum = 0.0f;", "poisoned"),
    mistake("double constant", SUM, "  float sum = 0.0f; sum = sum * 2.0;", "'double'"),
    mistake("recursion", SUM, "  float sum = tid ? sum_of_squares(x, p, tid - 1, threads) : 0.0f;", "recursion"),
    mistake("threadgroup array in a helper", SUM, "  SHARED(float, z, 4); float sum = 0.0f;", "non-kernel function"),
    mistake(
        "threadgroup array in an inner scope",
        BODY,
        "  if (tid) { SHARED(float, z, 4); z[0] = 1.0f; } const float sum = tg_sum",
        "outermost scope",
    ),
    mistake("threadgroup array at program scope", KERNEL, "SHARED(float, z, 4);\nKERNEL(subject", "address space"),
    mistake("global variable", KERNEL, "int counter = 1;\nKERNEL(subject", "constant address space"),
    mistake("static local variable", SUM, "  static float sum = 0.0f;", "static local"),
    mistake(
        "pointer to a function",
        SUM,
        "  float sum = 0.0f; float (*f)(float) = 0; sum = f(sum);",
        "pointers to functions",
    ),
    mistake("lambda", SUM, "  float sum = 0.0f; auto f = [](float a) { return a; }; sum = f(sum);", "a lambda"),
    mistake("maximum of two types", SUM, "  float sum = max(0.0f, 0);", "ambiguous"),
    mistake("C++17", SUM, "  float sum = 0.0f; if constexpr (sizeof(sum) == 4) sum = 0.0f;", "C++17"),
    mistake("standard library", SUM, "  float sum = std::exp(0.0f);", "poisoned"),
    mistake("variable that is never used", SUM, "  float sum = 0.0f; int unused = 1;", "unused variable"),
    mistake("32 buffers", KERNEL, BUFFERS_32, "the last is buffer(30)"),
    mistake(
        "two buffers in one place",
        KERNEL,
        "kernel void twice(device int* a [[buffer(1)]], device int* b [[buffer(1)]]) { a[0] = b[0]; }\nKERNEL(subject",
        "two parameters",
    ),
    mistake("more arguments than KERNEL takes", KERNEL, ARGUMENTS_22, "error:"),
    mistake(
        "more threadgroup memory than Apple's GPUs have",
        KERNEL,
        "LARGE_SHARED_SIZE(subject, 32768)\nKERNEL(subject",
        "32 KB of threadgroup memory",
    ),
];

const BUFFERS_32: &str = "kernel void many(
    device int* b0 [[buffer(0)]], device int* b1 [[buffer(1)]], device int* b2 [[buffer(2)]], device int* b3 [[buffer(3)]],
    device int* b4 [[buffer(4)]], device int* b5 [[buffer(5)]], device int* b6 [[buffer(6)]], device int* b7 [[buffer(7)]],
    device int* b8 [[buffer(8)]], device int* b9 [[buffer(9)]], device int* b10 [[buffer(10)]], device int* b11 [[buffer(11)]],
    device int* b12 [[buffer(12)]], device int* b13 [[buffer(13)]], device int* b14 [[buffer(14)]], device int* b15 [[buffer(15)]],
    device int* b16 [[buffer(16)]], device int* b17 [[buffer(17)]], device int* b18 [[buffer(18)]], device int* b19 [[buffer(19)]],
    device int* b20 [[buffer(20)]], device int* b21 [[buffer(21)]], device int* b22 [[buffer(22)]], device int* b23 [[buffer(23)]],
    device int* b24 [[buffer(24)]], device int* b25 [[buffer(25)]], device int* b26 [[buffer(26)]], device int* b27 [[buffer(27)]],
    device int* b28 [[buffer(28)]], device int* b29 [[buffer(29)]], device int* b30 [[buffer(30)]], device int* b31 [[buffer(31)]])
{ b0[0] = b31[0]; }
KERNEL(subject";

const ARGUMENTS_22: &str =
    "KERNEL(many, IN(int, a), IN(int, b), IN(int, c), IN(int, d), IN(int, e), IN(int, f), IN(int, g),
    IN(int, h), IN(int, i), IN(int, j), IN(int, k), IN(int, l), IN(int, m), IN(int, n), IN(int, o),
    IN(int, p), IN(int, q), IN(int, r), IN(int, s), IN(int, t), IN(int, u), OUT(int, v)) { v[0] = a[0]; }
KERNEL(subject";
