//! MLX's packed matrices and what `config.json` says about them. The fixture is made by `fixtures/mlx/make.py` with PyPI `mlx`
//! 0.32.4.

use anymlx_formats::mlx::{Mode, PackedMatrix, Quantization, QuantizationConfig, dequantize};
use anymlx_formats::safetensors::Safetensors;
use anymlx_formats::{DType, FormatError, quant};

const PACKED: &[u8] = include_bytes!("fixtures/mlx/packed.safetensors");

/// Bits and group sizes of every layout.
fn layouts() -> Vec<Quantization> {
    let mut layouts = Vec::new();
    for mode in Mode::ALL {
        for bits in 1..=8 {
            for group_size in [16, 32, 64, 128] {
                layouts.extend(Quantization::new(mode, bits, group_size));
            }
        }
    }
    layouts
}

#[test]
fn every_layout_unpacks_to_the_same_bits() {
    let file = Safetensors::parse(PACKED).unwrap();
    assert_eq!(file.metadata, [("format".to_owned(), "mlx".to_owned())]);
    let layouts = layouts();
    assert_eq!(layouts.len(), 24);
    for layout in layouts {
        let name = format!("{}.{}.{}", layout.mode(), layout.bits(), layout.group_size());
        let data = |part: &str| file.require_tensor(&format!("{name}.{part}")).and_then(|tensor| tensor.data(PACKED));
        let weight = file.require_tensor(&format!("{name}.weight")).unwrap();
        let scales = file.require_tensor(&format!("{name}.scales")).unwrap();
        let columns = layout.columns(weight.shape[1]).unwrap();
        assert_eq!(layout.packed_words(columns).unwrap(), weight.shape[1]);
        assert_eq!(scales.shape, [weight.shape[0], layout.groups(columns).unwrap()]);

        let mut expected = vec![0.0; (weight.shape[0] * columns) as usize];
        quant::dequantize(DType::F32, data("values").unwrap(), &mut expected).unwrap();
        let mut found = vec![0.5; expected.len()];
        let matrix = PackedMatrix {
            quantization: layout,
            columns: columns as usize,
            packed: data("weight").unwrap(),
            scales: data("scales").unwrap(),
            scale_type: scales.dtype().unwrap(),
            biases: data("biases").ok(),
        };
        dequantize(&matrix, &mut found).unwrap();
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            assert!(same, "{layout} element {index}: {found}, mlx has {expected}");
        }
    }
}

/// A good matrix of two rows of 64 elements, with zeros for data.
struct Zeros {
    packed: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl Zeros {
    fn new() -> Self {
        Zeros { packed: vec![0; 48], scales: vec![0; 8], biases: vec![0; 8] }
    }

    fn matrix(&self) -> PackedMatrix<'_> {
        PackedMatrix {
            quantization: Quantization::new(Mode::Affine, 3, 32).unwrap(),
            columns: 64,
            packed: &self.packed,
            scales: &self.scales,
            scale_type: DType::F16,
            biases: Some(&self.biases),
        }
    }
}

#[test]
fn parts_that_do_not_agree_are_refused() {
    let zeros = Zeros::new();
    let good = zeros.matrix();
    let mut values = vec![1.0; 128];
    dequantize(&good, &mut values).unwrap();
    assert!(values.iter().all(|&x| x == 0.0));
    dequantize(&PackedMatrix { packed: &[], scales: &[], biases: Some(&[]), ..good }, &mut []).unwrap();

    let refused = |matrix: PackedMatrix<'_>, elements: usize| {
        let error = dequantize(&matrix, &mut vec![0.0; elements]).expect_err("must be refused");
        assert!(matches!(error, FormatError::InvalidArgument { .. }));
        error.to_string()
    };
    assert_eq!(
        refused(PackedMatrix { columns: 48, ..good }, 96),
        "mlx quantisation: affine 3-bit g32: rows of 48 elements given, a multiple of 32 is needed"
    );
    assert!(refused(PackedMatrix { columns: 0, ..good }, 0).contains("rows of 0 elements"));
    assert!(refused(good, 96).contains("96 elements given, whole rows of 64 are needed"));
    assert_eq!(
        refused(PackedMatrix { packed: &zeros.packed[1..], ..good }, 128),
        "mlx dequantise: affine 3-bit g32: codes of 47 bytes given, 48 are needed for 128 elements"
    );
    assert!(
        refused(PackedMatrix { scales: &zeros.scales[..7], ..good }, 128).contains("scales of 7 bytes given, 8 are")
    );
    assert!(refused(PackedMatrix { biases: Some(&[]), ..good }, 128).contains("biases of 0 bytes given, 8 are"));
    assert!(refused(PackedMatrix { biases: None, ..good }, 128).contains("no biases given, the mode needs them"));
    assert!(refused(PackedMatrix { scale_type: DType::U8, ..good }, 128).contains("f32, f16 or bf16 is needed"));
    let eight =
        PackedMatrix { quantization: Quantization::new(Mode::Mxfp8, 8, 32).unwrap(), packed: &[0; 128], ..good };
    assert!(refused(eight, 128).contains("scales of f16 given, u8 is needed"));
    let eight = PackedMatrix { scale_type: DType::U8, scales: &[0; 4], ..eight };
    assert!(refused(eight, 128).contains("biases given, the mode has none"));
    dequantize(&PackedMatrix { biases: None, ..eight }, &mut values).unwrap();
}

fn config(quantization: &str) -> Result<Option<QuantizationConfig>, FormatError> {
    let text = format!("{{\"model_type\": \"llama\", \"quantization\": {quantization}, \"eos_token_id\": [1, 2]}}");
    QuantizationConfig::parse(text.as_bytes())
}

#[test]
fn configurations() {
    let affine = |bits, group_size| Quantization::new(Mode::Affine, bits, group_size).unwrap();
    assert_eq!(QuantizationConfig::parse(b"{\"model_type\": \"llama\"}").unwrap(), None);
    assert_eq!(config("null").unwrap(), None);
    let plain = config("{\"group_size\": 64, \"bits\": 4}").unwrap().unwrap();
    assert_eq!((plain.default, plain.overrides().len()), (affine(4, 64), 0));
    assert_eq!(
        config("{\"mode\": \"nvfp4\"}").unwrap().unwrap().default,
        Quantization::new(Mode::Nvfp4, 4, 16).unwrap()
    );

    let mixed = config(
        "{\"group_size\": 32, \"bits\": 3, \"mode\": \"affine\", \"quant_method\": \"mlx\", \"threshold\": -0.5, \"list\": [1, {}],
          \"lm_head\": false, \"model.embed_tokens\": {\"group_size\": 128, \"bits\": 8, \"note\": null},
          \"b\": true, \"a\": {\"mode\": \"mxfp4\"}, \"c\": {\"group_size\": null, \"bits\": 2}}",
    );
    let mixed = mixed.unwrap().unwrap();
    assert_eq!(mixed.layer("model.layers.0.mlp.up_proj"), Some(affine(3, 32)));
    assert_eq!(mixed.layer("lm_head"), None);
    assert_eq!(mixed.layer("model.embed_tokens"), Some(affine(8, 128)));
    assert_eq!(mixed.layer("a"), Some(Quantization::new(Mode::Mxfp4, 4, 32).unwrap()));
    assert_eq!(mixed.layer("b"), Some(affine(3, 32)));
    // As in MLX, what an exception leaves out is the default of its mode.
    assert_eq!(mixed.layer("c"), Some(affine(2, 64)));
    let names: Vec<&str> = mixed.overrides().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b", "c", "lm_head", "model.embed_tokens"]);
}

#[test]
fn hostile_configurations() {
    for (quantization, expected) in [
        ("{\"bits\": 7}", "affine with 7 bits in groups of 64"),
        ("{\"bits\": 4, \"group_size\": 0}", "in groups of 0 given"),
        ("{\"bits\": 4294967300}", "`bits` is 4294967300, far too large"),
        ("{\"bits\": -4}", "`bits`: a whole number is needed"),
        ("{\"bits\": 4.0}", "`bits`: a whole number is needed"),
        ("{\"bits\": {}}", "`bits`: a whole number is needed"),
        ("{\"mode\": 4}", "`mode`: a string is needed"),
        ("{\"mode\": \"int4\"}", "`mode` is `int4`, one of affine, mxfp4, mxfp8 and nvfp4"),
        ("{\"bits\": 4, \"bits\": 4}", "`bits` appears twice"),
        ("{\"a\": true, \"a\": false}", "layer `a` appears twice"),
        ("{\"a\": {\"bits\": 9}}", "`a`: mlx quantisation: affine with 9 bits"),
        ("{\"a\": {\"mode\": \"nvfp4\", \"global_scale\": true}}", "scales of whole tensors are not supported"),
        ("[4, 64]", "expected an object with `group_size` and `bits`"),
        ("{}, \"quantization\": {}", "duplicate field `quantization`"),
    ] {
        let error = config(quantization).expect_err(quantization).to_string();
        assert!(error.starts_with("mlx config: ") && error.contains(expected), "{error}");
    }
    let deep = "{\"a\":".repeat(10_000);
    assert!(config(&deep).unwrap_err().to_string().contains("recursion limit"));
    assert!(QuantizationConfig::parse(b"").is_err());
}
