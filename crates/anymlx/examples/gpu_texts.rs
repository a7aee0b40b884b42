//! Writes every GPU text of the library into a folder, as compilers get them: `gpu_texts FOLDER`.

use anymlx::ops::gpu::{TextLanguage, texts};
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
    let texts = texts();
    for text in &texts {
        let extension = match text.language {
            TextLanguage::Portable => "gpu.cpp",
            TextLanguage::Metal => "metal",
            _ => "cu",
        };
        fs::write(folder.join(format!("{}.{extension}", text.name.replace(' ', "-"))), &text.text)?;
    }
    Ok(texts.len())
}
