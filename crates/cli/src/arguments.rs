//! The command line.

use std::path::PathBuf;

use anymlx_lm::{CacheType, SyntheticShape, SyntheticWeights};
use clap::{Args, Parser, Subcommand};

/// Run, measure and inspect language models.
#[derive(Debug, Parser)]
#[command(name = "anymlx", version, about, propagate_version = true)]
pub struct Arguments {
    #[command(flatten)]
    pub shared: Shared,

    /// Say more on standard error; repeat for more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    #[command(subcommand)]
    pub command: Command,
}

/// Options that all commands share.
#[derive(Debug, Args)]
pub struct Shared {
    /// Name from the catalogue, path of a GGUF file, or hf:ORG/REPO/FILE [default: gemma3-270m]
    #[arg(short, long, global = true, value_name = "NAME|PATH")]
    pub model: Option<String>,

    /// cpu, cuda:N or metal [default: the best present]
    #[arg(long, global = true)]
    pub device: Option<String>,

    /// Threads that run kernels on the CPU [default: one for each processor]
    #[arg(short, long, global = true, value_name = "N")]
    pub threads: Option<usize>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Continue a text
    Generate(Generate),
    /// Measure how well a model predicts a text
    Perplexity(Perplexity),
    /// Show the tokens of a text
    Tokenize(Tokenize),
    /// Show the metadata and tensors of a model file
    Inspect(Inspect),
    /// List the devices of this machine
    Devices,
    /// Fetch a model into the cache
    Pull(Pull),
    /// Measure tokens per second
    Bench(Bench),
    /// Write a model file with weights of another type
    Quantize(Quantize),
    /// Write a GGUF model as a folder of safetensors, or such a folder as a GGUF file, without loss
    Convert(Convert),
    /// Measure how much the columns of a model's matrices matter, for `quantize`
    Imatrix(Imatrix),
}

/// Continue a text.
#[derive(Debug, Args)]
pub struct Generate {
    /// The text; `-` or nothing reads standard input
    pub prompt: Option<String>,

    /// Tokens to draw at most
    #[arg(short = 'n', long, default_value_t = 128, value_name = "N")]
    pub max_tokens: usize,

    /// 0 always takes the most likely token
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,

    /// Draw from the K most likely tokens only; 0 is off
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,

    /// Draw from the most likely tokens that together have this probability; 1 is off
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f32,

    /// Draw from tokens with at least this share of the best token's probability; 0 is off
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub min_p: f32,

    /// Number that fixes the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Positions of the context [default: as many as the prompt and the answer need]
    #[arg(short, long, value_name = "N")]
    pub context: Option<usize>,

    /// Put the text into the model's chat template, as the user's message
    #[arg(long)]
    pub chat: bool,

    /// Go on after the model has ended its text
    #[arg(long)]
    pub ignore_end: bool,

    /// Tokens of the prompt that are worked on together [default: what suits the device]
    #[arg(long, value_name = "N")]
    pub chunk: Option<usize>,

    #[command(flatten)]
    pub cache: Cache,
}

/// How keys and values are kept.
#[derive(Debug, Args)]
pub struct Cache {
    /// Element type of the key-value cache: f16, f32, q8_0 or q4_0
    #[arg(long, default_value_t = CacheType::F16, value_name = "TYPE")]
    pub cache_type: CacheType,
}

/// Measure how well a model predicts a text.
#[derive(Debug, Args)]
pub struct Perplexity {
    /// The text
    pub file: PathBuf,

    /// Tokens of a chunk
    #[arg(short, long, default_value_t = 512, value_name = "N")]
    pub context: usize,

    /// Tokens that are worked on together [default: what suits the device]
    #[arg(long, value_name = "N")]
    pub chunk: Option<usize>,

    #[command(flatten)]
    pub cache: Cache,
}

/// Show the tokens of a text.
#[derive(Debug, Args)]
pub struct Tokenize {
    /// The text; `-` or nothing reads standard input
    pub text: Option<String>,

    /// Print the ids as one JSON list
    #[arg(long)]
    pub ids: bool,

    /// Leave out the begin-of-text token
    #[arg(long)]
    pub no_bos: bool,

    /// Read control tokens written in the text as such
    #[arg(long)]
    pub special: bool,
}

/// Show the metadata and tensors of a model file.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The file [default: that of --model]
    pub file: Option<PathBuf>,
}

/// Fetch a model into the cache.
#[derive(Debug, Args)]
pub struct Pull {
    /// Name from the catalogue, or hf:ORG/REPO/FILE
    pub name: String,
}

/// Measure tokens per second.
#[derive(Debug, Args)]
pub struct Bench {
    /// Tokens of the prompt; 0 leaves the prompt test out
    #[arg(short = 'p', long, default_value_t = 512, value_name = "N")]
    pub prompt: usize,

    /// Tokens to draw; 0 leaves the generation test out
    #[arg(short = 'n', long, default_value_t = 128, value_name = "N")]
    pub generate: usize,

    /// Tokens in the context before each test
    #[arg(short = 'd', long, default_value_t = 0, value_name = "N")]
    pub depth: usize,

    /// Counted runs of each test
    #[arg(short, long, default_value_t = 5, value_name = "N")]
    pub repetitions: usize,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// Show the time spent in each kernel of a decoded token
    #[arg(long)]
    pub profile: bool,

    /// Measure a published shape with random weights in place of a file: llama-8b or llama-1b
    #[arg(long, value_name = "SHAPE", conflicts_with = "model")]
    pub shape: Option<SyntheticShape>,

    /// Types of the weights of --shape: q4_k_m, or one for all such as q8_0
    #[arg(long, value_name = "TYPE", default_value = "q4_k_m", requires = "shape")]
    pub quant: SyntheticWeights,

    #[command(flatten)]
    pub cache: Cache,
}

/// Write a GGUF model as a folder of safetensors, or such a folder as a GGUF file, without loss.
#[derive(Debug, Args)]
pub struct Convert {
    /// Name from the catalogue, path of a GGUF file with unquantised tensors, hf:ORG/REPO/FILE, or a folder of safetensors
    #[arg(value_name = "IN")]
    pub input: String,

    /// The new folder, or the new GGUF file
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
}

/// Measure how much the columns of a model's matrices matter.
#[derive(Debug, Args)]
pub struct Imatrix {
    /// The text to read
    pub file: PathBuf,

    /// The new file
    #[arg(short, long, default_value = "imatrix.gguf", value_name = "OUT")]
    pub output: PathBuf,

    /// Tokens of a chunk
    #[arg(short, long, default_value_t = 512, value_name = "N")]
    pub context: usize,

    /// Tokens that are worked on together
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub chunk: usize,
}

/// Write a model file with weights of another type.
#[derive(Debug, Args)]
pub struct Quantize {
    /// Name from the catalogue, path of a GGUF file (of a split model: any part), or hf:ORG/REPO/FILE
    #[arg(value_name = "IN")]
    pub input: String,

    /// The new file, or folder
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// q4_k_m, q8_0, q4_0, q6_k, f16, .. (a wrong name lists all); mlx-4bit-g64 and its like make a folder for MLX
    #[arg(long = "type", value_name = "TYPE")]
    pub recipe: String,

    /// One type for all matrices, as far as their columns allow
    #[arg(long)]
    pub pure: bool,

    /// How much columns matter: a file of `anymlx imatrix` or of llama.cpp
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,

    /// Replace OUT where it exists
    #[arg(long)]
    pub overwrite: bool,
}
