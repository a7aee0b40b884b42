//! `anymlx quantize`.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anymlx::HostFile;
use anymlx_formats::{
    TensorType,
    gguf::{SplitGguf, sibling_paths},
};
use anymlx_lm::{
    export::ExportWeights,
    quantize::{ImportanceMatrix, Mixing, QuantizeOptions, QuantizePlan, Recipe, SourceTensor},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::convert;
use crate::{
    arguments::{Quantize, Shared},
    failure::{Failure, Outcome},
    models,
    partial::PartialFile,
};

pub fn run(shared: &Shared, options: &Quantize) -> Outcome {
    if let Some(quantization) = convert::mlx_type(&options.recipe)? {
        if options.pure || options.overwrite || options.imatrix.is_some() {
            return Err(Failure::message("quantize: --pure, --overwrite and --imatrix are for GGUF files"));
        }
        let input = models::resolve(Some(&options.input))?;
        return convert::export(shared, &input, &options.output, ExportWeights::Packed(quantization));
    }
    let recipe: Recipe = options.recipe.parse()?;
    let input = models::resolve(Some(&options.input))?;
    let paths = sibling_paths(&input);
    let output = &options.output;
    check_output(output, &paths, options.overwrite)?;
    let files = paths.iter().map(HostFile::open).collect::<Result<Vec<_>, _>>()?;
    let bytes: Vec<&[u8]> = files.iter().map(HostFile::bytes).collect();
    let model = SplitGguf::parse(&bytes).map_err(loading(&input))?;
    let tensors = model
        .tensors
        .iter()
        .map(|tensor| Ok(SourceTensor { info: &tensor.info, data: tensor.info.data(bytes[tensor.file])? }))
        .collect::<Outcome<Vec<_>>>()?;
    let mixing = if options.pure { Mixing::Pure } else { Mixing::Mixed };
    let importance = options.imatrix.as_deref().map(read_importance).transpose()?;
    let quantize_options = QuantizeOptions { recipe, mixing, importance: importance.as_ref() };
    let plan = QuantizePlan::new(&model.metadata, tensors, &quantize_options).map_err(loading(&input))?;
    notice(&plan, recipe);

    let read: Vec<&Path> = paths.iter().map(PathBuf::as_path).chain(options.imatrix.as_deref()).collect();
    let stamp = stamp(&read, &format!("type: {recipe}, {mixing:?}"))?;
    let mut partial = PartialFile::open(output, stamp)?;
    if partial.resumed() > 0 {
        eprintln!("going on after {} MB that an earlier run has written", partial.resumed() / 1_000_000);
    }
    let bar = progress(plan.source_bytes());
    let present = partial.resumed();
    let written = plan
        .write(&mut partial, present, threads(shared)?, &|bytes| bar.inc(bytes))
        .map_err(|error| Failure::message(format!("quantize to `{}`: {error}", output.display())))?;
    partial.publish()?;
    bar.finish_and_clear();
    summary(&plan, output, written).map_err(Failure::output)
}

fn read_importance(path: &Path) -> Outcome<ImportanceMatrix> {
    let file = HostFile::open(path)?;
    let matrix = ImportanceMatrix::parse(file.bytes());
    matrix.map_err(loading(path))
}

/// What is wrong with a file, under its name.
pub fn loading<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Failure {
    move |error| Failure::message(format!("load `{}`: {error}", path.display()))
}

/// Refuses to write over the input, or over anything else without being asked to.
fn check_output(output: &Path, inputs: &[PathBuf], overwrite: bool) -> Outcome {
    let Ok(found) = output.canonicalize() else { return Ok(()) };
    let refuse = |reason: &str| Err(Failure::message(format!("quantize to `{}`: {reason}", output.display())));
    if inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == found)) {
        return refuse("that is the input; give another name");
    }
    if found.is_dir() {
        return refuse("that is a folder");
    }
    if overwrite { Ok(()) } else { refuse("the file exists; --overwrite replaces it") }
}

/// A bar for so many bytes of the source.
pub fn progress(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} read, {bytes_per_sec}, {eta} left")
        .expect("a valid template");
    ProgressBar::new(bytes).with_style(style)
}

/// Threads that the user asks for, or one for each processor.
pub fn threads(shared: &Shared) -> Outcome<usize> {
    match shared.threads {
        Some(0) => Err(Failure::message("0 threads asked for, needed at least 1")),
        Some(threads) => Ok(threads),
        None => Ok(std::thread::available_parallelism().map_or(1, |threads| threads.get())),
    }
}

/// Everything that the new file depends on.
pub fn stamp(inputs: &[&Path], what: &str) -> Outcome<String> {
    let mut lines = vec![format!("anymlx {}", env!("CARGO_PKG_VERSION")), what.to_owned()];
    for input in inputs {
        let failed = |error: std::io::Error| Failure::message(format!("read `{}`: {error}", input.display()));
        let found = input.metadata().map_err(failed)?;
        let modified = found.modified().map_err(failed)?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = input.canonicalize().map_err(failed)?;
        lines.push(format!("{path:?}, {} bytes, modified {}", found.len(), modified.as_nanos()));
    }
    Ok(lines.join("\n"))
}

/// Says what the user may not expect.
fn notice(plan: &QuantizePlan<'_>, recipe: Recipe) {
    let changed = || plan.tensors().iter().filter(|tensor| tensor.to != tensor.source.info.tensor_type);
    let coarse = |kind: TensorType| matches!(kind, TensorType::Quantized(_));
    let again = changed().filter(|tensor| coarse(tensor.source.info.tensor_type) && coarse(tensor.to)).count();
    if again > 0 {
        eprintln!(
            "notice: {again} tensors are quantised already and lose more; a file in 16 bits gives better results"
        );
    }
    let block_len = recipe.base().block_len() as u64;
    let odd = changed().filter(|tensor| !tensor.source.info.row_len().is_multiple_of(block_len)).count();
    if odd > 0 {
        eprintln!(
            "notice: {odd} tensors have rows that are no multiple of {block_len}, which {} needs; they get other types",
            recipe.base()
        );
    }
}

fn summary(plan: &QuantizePlan<'_>, output: &Path, written: u64) -> std::io::Result<()> {
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in plan.tensors() {
        *types.entry(tensor.to.name()).or_default() += 1;
    }
    let elements: u64 = plan.tensors().iter().map(|tensor| tensor.source.info.element_count()).sum();
    let types: Vec<String> = types.iter().map(|(name, count)| format!("{count} {name}")).collect();
    writeln!(
        std::io::stdout().lock(),
        "{}: {written} bytes, {:.2} bits per weight; tensors: {}",
        output.display(),
        written as f64 * 8.0 / elements as f64,
        types.join(", ")
    )
}
