//! Writes every GPU text of the library into a folder, as compilers get them: `gpu_texts FOLDER`.

use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: gpu_texts FOLDER");
        return ExitCode::FAILURE;
    };
    match write(&folder) {
        Ok(count) => {
            println!("{count} texts in {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &std::path::Path) -> std::io::Result<usize> {
    fs::create_dir_all(folder)?;
    let texts = anymlx::ops::gpu::texts();
    for text in &texts {
        fs::write(folder.join(text.name.replace(' ', "-")).with_extension("gpu.cpp"), &text.text)?;
    }
    Ok(texts.len())
}
