//! `anymlx convert`: a folder from a GGUF file and a GGUF file from a folder; and the MLX side of `anymlx quantize`.

use std::{
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anymlx_formats::{
    mlx::{Mode, Quantization},
    safetensors::INDEX_FILE_NAME,
};
use anymlx_lm::{
    Checkpoint,
    export::{ExportPlan, ExportWeights, TENSORS_FILE},
    import::ImportPlan,
};

use super::quantize::{loading, progress, stamp, threads};
use crate::{
    arguments::{Convert, Shared},
    failure::{Failure, Outcome},
    models,
    partial::PartialFile,
};

/// What a folder's GGUF file depends on beside the tensors.
const FOLDER_TEXTS: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    INDEX_FILE_NAME,
];

pub fn run(shared: &Shared, options: &Convert) -> Outcome {
    let given = Path::new(&options.input);
    if given.is_dir() || given.extension().is_some_and(|extension| extension == "safetensors") {
        return import(given, &options.output);
    }
    export(shared, &models::resolve(Some(&options.input))?, &options.output, ExportWeights::Lossless)
}

/// Writes the GGUF file `output`, which appears when it is complete.
fn import(input: &Path, output: &Path) -> Outcome {
    if output.exists() {
        return Err(Failure::message(format!("write `{}`: it exists; give the name of a new file", output.display())));
    }
    let checkpoint = Checkpoint::open(input).map_err(loading(input))?;
    let folder = if input.is_dir() { input } else { input.parent().unwrap_or(input) };
    let folder = folder.canonicalize().map_err(loading(input))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let plan = ImportPlan::new(&checkpoint, &name).map_err(loading(input))?;

    let mut read: Vec<&Path> = checkpoint.paths().iter().map(PathBuf::as_path).collect();
    let texts = FOLDER_TEXTS.map(|name| folder.join(name));
    read.extend(texts.iter().map(PathBuf::as_path).filter(|path| path.is_file()));
    let mut partial = PartialFile::open(output, stamp(&read, "to GGUF")?)?;
    let bar = progress(plan.source_bytes());
    let present = partial.resumed();
    let written = plan
        .write(&mut partial, present, &|bytes| bar.inc(bytes))
        .map_err(|error| Failure::message(format!("write `{}`: {error}", output.display())))?;
    partial.publish()?;
    bar.finish_and_clear();
    writeln!(std::io::stdout().lock(), "{}: {written} bytes", output.display()).map_err(Failure::output)
}

/// `mlx-4bit-g64` and its like.
pub fn mlx_type(name: &str) -> Outcome<Option<Quantization>> {
    let Some(layout) = name.strip_prefix("mlx-") else { return Ok(None) };
    let numbers = layout.split_once("bit-g").and_then(|(bits, group)| Some((bits.parse().ok()?, group.parse().ok()?)));
    let Some((bits, group)) = numbers else {
        return Err(Failure::message(format!(
            "quantize: type `{name}` given, needed mlx-BITSbit-gGROUP as in mlx-4bit-g64"
        )));
    };
    Ok(Some(Quantization::new(Mode::Affine, bits, group)?))
}

/// Writes the folder `output`, which appears when it is complete.
pub fn export(shared: &Shared, input: &Path, output: &Path, weights: ExportWeights) -> Outcome {
    if output.exists() {
        return Err(Failure::message(format!(
            "write `{}`: it exists; give the name of a new folder",
            output.display()
        )));
    }
    let checkpoint = Checkpoint::open(input).map_err(loading(input))?;
    let plan = ExportPlan::new(&checkpoint, weights).map_err(loading(input))?;

    let mut folder = OsString::from(output);
    folder.push(".partial");
    let folder = PathBuf::from(folder);
    let failed = |error: std::io::Error| Failure::message(format!("write `{}`: {error}", folder.display()));
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut partial =
        PartialFile::open(&folder.join(TENSORS_FILE), stamp(&[input], &format!("weights: {weights:?}"))?)?;
    let bar = progress(plan.source_bytes());
    let present = partial.resumed();
    let written = plan
        .write_tensors(&mut partial, present, threads(shared)?, &|bytes| bar.inc(bytes))
        .map_err(|error| Failure::message(format!("write `{}`: {error}", output.display())))?;
    partial.publish()?;
    for (name, bytes) in plan.files()? {
        fs::write(folder.join(name), bytes).map_err(failed)?;
    }
    fs::rename(&folder, output).map_err(failed)?;
    bar.finish_and_clear();
    writeln!(std::io::stdout().lock(), "{}: {written} bytes of tensors", output.display()).map_err(Failure::output)
}
