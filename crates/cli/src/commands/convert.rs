//! `anymlx convert`, and the MLX side of `anymlx quantize`: a folder from a GGUF file.

use std::{
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anymlx_formats::mlx::{Mode, Quantization};
use anymlx_lm::{
    Checkpoint,
    export::{ExportPlan, ExportWeights, TENSORS_FILE},
};

use super::quantize::{progress, stamp, threads};
use crate::{
    arguments::{Convert, Shared},
    failure::{Failure, Outcome},
    models,
    partial::PartialFile,
};

pub fn run(shared: &Shared, options: &Convert) -> Outcome {
    export(shared, &models::resolve(Some(&options.input))?, &options.output, ExportWeights::Lossless)
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
    let at_input = |error: &dyn std::error::Error| Failure::message(format!("load `{}`: {error}", input.display()));
    let checkpoint = Checkpoint::open(input).map_err(|error| at_input(&error))?;
    let plan = ExportPlan::new(&checkpoint, weights).map_err(|error| at_input(&error))?;

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
