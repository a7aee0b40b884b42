//! Files with weights of another type.

use super::{Folder, refusal, run, succeeds, tiny_model};

#[test]
fn a_file_is_written_whole_and_not_twice() {
    let folder = Folder::new("quantize");
    let tiny = tiny_model();
    let (input, output) = (tiny.to_str().unwrap(), folder.0.join("small.gguf"));
    let output = output.to_str().unwrap();
    let said = succeeds(["quantize", input, output, "--type", "q8_0"]);
    assert!(said.contains("small.gguf") && said.contains("bits per weight") && said.contains("Q8_0"), "{said}");
    let left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["small.gguf"], "nothing else is left");
    let inspected = succeeds(["inspect", output]);
    assert!(inspected.contains("general.file_type (u32) = 7"), "{inspected}");

    let message = refusal(&run(["quantize", input, output, "--type", "q4_0"]));
    assert!(message.contains("exists") && message.contains("--overwrite"), "{message}");
    succeeds(["quantize", input, output, "--type", "q4_0", "--overwrite"]);
    assert!(succeeds(["inspect", output]).contains("general.file_type (u32) = 2"));
    let message = refusal(&run(["quantize", output, output, "--type", "q4_0", "--overwrite"]));
    assert!(message.contains("that is the input"), "{message}");
}

#[test]
fn what_cannot_be_made_is_refused() {
    let folder = Folder::new("quantize-refused");
    let tiny = tiny_model();
    let (input, output) = (tiny.to_str().unwrap(), folder.0.join("out"));
    let output = output.to_str().unwrap();
    for (kind, expected) in [
        ("q9_z", "q4_k_m"),
        ("mlx-4", "mlx-4bit-g64"),
        ("mlx-7bit-g64", "bits of"),
        // The tiny model has no vocabulary to write.
        ("mlx-4bit-g64", "no_vocab"),
    ] {
        let message = refusal(&run(["quantize", input, output, "--type", kind]));
        assert!(message.contains(expected), "{kind}: {message}");
    }
    let broken = folder.write("broken.gguf", b"GGUF\x03\0\0\0");
    let message = refusal(&run(["quantize", broken.to_str().unwrap(), output, "--type", "q8_0"]));
    assert!(message.contains("broken.gguf"), "{message}");
    let message = refusal(&run(["convert", "no-such-model.gguf", output]));
    assert!(message.contains("no-such-model.gguf"), "{message}");
    assert!(!folder.0.join("out").exists());
}

#[test]
fn a_folder_becomes_a_file_and_a_folder_again() {
    let folder = Folder::new("convert");
    let given = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../lm/tests/goldens/mlx/qwen2-hf");
    let (given, file, back) = (given.to_str().unwrap(), folder.0.join("model.gguf"), folder.0.join("back"));
    let (file, back) = (file.to_str().unwrap(), back.to_str().unwrap());
    assert!(succeeds(["convert", given, file]).contains("model.gguf"));
    let inspected = succeeds(["inspect", file]);
    assert!(inspected.contains("general.name (string) = \"qwen2-hf\""), "{inspected}");
    let message = refusal(&run(["convert", given, file]));
    assert!(message.contains("exists"), "{message}");
    succeeds(["convert", file, back]);
    assert!(folder.0.join("back/model.safetensors").is_file());
    let packed = given.replace("qwen2-hf", "qwen2-affine-4bit");
    let message = refusal(&run(["convert", &packed, &format!("{file}.more")]));
    assert!(message.contains("packed by MLX"), "{message}");
    let left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn cache_types_are_named() {
    let output = run(["bench", "--cache-type", "q3_0"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(message.contains("q3_0") && message.contains("q8_0"), "{message}");
}
