//! Checkpoints of MLX and of Hugging Face against what MLX computes for them; `goldens/mlx` holds the records and the
//! script that made them.

mod support;

use std::path::{Path, PathBuf};

use anymlx::MlxDevice;
use anymlx_lm::{
    Checkpoint,
    chat::{Message, RenderOptions},
    tokenizer::{DecodeOptions, EncodeOptions},
};
use serde::Deserialize;
use support::{logits_agree, mlx_goldens};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mlx")
}

#[test]
fn logits_agree_with_mlx() {
    let device = MlxDevice::cpu().unwrap();
    for golden in mlx_goldens() {
        logits_agree(&golden, &device, 3);
    }
}

#[derive(Deserialize)]
struct Texts {
    cases: Vec<TextCase>,
}

#[derive(Deserialize)]
struct TextCase {
    checkpoint: String,
    text: String,
    parse_special: bool,
    ids: Vec<u32>,
    decoded: String,
}

#[test]
fn ids_of_texts_are_those_of_hugging_face() {
    let texts: Texts =
        serde_json::from_slice(&std::fs::read(directory().join("tokenizer/texts.json")).unwrap()).unwrap();
    assert!(texts.cases.len() > 40);
    for case in &texts.cases {
        let tokenizer = Checkpoint::open(directory().join(&case.checkpoint)).unwrap().tokenizer().unwrap();
        let options = EncodeOptions { parse_special: case.parse_special, ..EncodeOptions::default() };
        let ids = tokenizer.encode(&case.text, options).unwrap();
        assert_eq!(ids, case.ids, "{} {:?}", case.checkpoint, case.text);
        assert_eq!(tokenizer.decode(&ids, DecodeOptions::default()).unwrap(), case.decoded, "{:?}", case.text);
        assert!(tokenizer.add_bos_by_default() && !tokenizer.add_eos_by_default());
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.unknown()), (Some(1), Some(2), Some(0)));
        assert!(tokenizer.end_of_generation().starts_with(&[2, 3]), "the end of a text and that of a turn");
    }
}

#[test]
fn the_chat_template_comes_with_the_folder() {
    let template = Checkpoint::open(directory().join("qwen2-hf")).unwrap().chat_template().unwrap().unwrap();
    let prompt = template.render(&[Message::new("user", "Hi")], RenderOptions { add_generation_prompt: true }).unwrap();
    assert_eq!(prompt, "<|user|>Hi</s><|assistant|>");
}
