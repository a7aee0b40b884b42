"""Makes the golden models of this folder: tiny random models, run by Hugging Face transformers on the CPU in float32.

    python make.py [--only NAME ..] [--output FOLDER] [--compare PROGRAM]

For each case it writes NAME.gguf (the model as llama.cpp's converter would write it), NAME.json (input, greedy continuation, versions)
and NAME.logits (little-endian float32, [tokens, vocabulary]). The README says what is needed and what the fields mean.
With --compare nothing is written: PROGRAM (llama_cpp_logits.cpp, built against llama.cpp) runs the files that are there.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 160
TOKENS = 29
CONTINUATION = 16
PROMPTS_TRIED = 512
K_TYPES = (Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K)

SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)


@dataclass
class Case:
    name: str
    description: str
    config: transformers.PreTrainedConfig
    model_class: type
    architecture: str
    seed: int
    # GGUF tensor name -> type of a matrix; vectors are always F32.
    matrix_type: Callable[[str], Type] = lambda name: Type.F32
    file_type: gguf.LlamaFileType = gguf.LlamaFileType.ALL_F32
    # How a Gemma file states which layers see a window: "pattern" (every n-th is global), "layers" (one flag per layer) or
    # None (nothing, like the files of 2025: every sixth is global and the local base is 10000).
    window_metadata: str | None = None
    extra: dict = field(default_factory=dict)


def gemma3(layers, full_every, local_base, global_rope, **sizes):
    types = ["full_attention" if (i + 1) % full_every == 0 else "sliding_attention" for i in range(layers)]
    sizes = SIZES | dict(head_dim=32, num_hidden_layers=layers) | sizes
    return Gemma3TextConfig(
        **sizes,
        query_pre_attn_scalar=sizes["head_dim"],
        sliding_window=8,
        layer_types=types,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0} | global_rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": local_base},
        },
    )


def rope(base, **scaling):
    return {"rope_type": "default", "rope_theta": base} | scaling


def all_of(matrix_type):
    return dict(matrix_type=lambda name: matrix_type)


def mixed_blocks(name):
    """Every 32-wide block type in one model."""
    kinds = {
        "token_embd": Type.Q8_0,
        "output": Type.Q5_1,
        "attn_q": Type.Q4_0,
        "attn_k": Type.Q5_0,
        "attn_v": Type.Q8_0,
        "attn_output": Type.Q4_1,
        "ffn_gate": Type.Q4_0,
        "ffn_up": Type.Q5_1,
        "ffn_down": Type.Q5_0,
    }
    return kinds[name.removesuffix(".weight").split(".")[-1]]


def mixed_k_blocks(name):
    """Every 256-wide block type in one model."""
    kinds = {
        "token_embd": Type.Q4_K,
        "output": Type.Q6_K,
        "attn_q": Type.Q4_K,
        "attn_k": Type.Q5_K,
        "attn_v": Type.Q6_K,
        "attn_output": Type.Q4_K,
        "ffn_gate": Type.Q2_K,
        "ffn_up": Type.Q3_K,
        "ffn_down": Type.Q6_K,
    }
    return kinds[name.removesuffix(".weight").split(".")[-1]]


def cases():
    file_types = gguf.LlamaFileType
    gemma = dict(model_class=Gemma3ForCausalLM, architecture="gemma3")
    qwen = dict(model_class=Qwen2ForCausalLM, architecture="qwen2")
    llama = dict(model_class=LlamaForCausalLM, architecture="llama")
    f16 = all_of(Type.F16) | dict(file_type=file_types.MOSTLY_F16)
    bf16 = all_of(Type.BF16) | dict(file_type=file_types.MOSTLY_BF16)
    q8_0 = all_of(Type.Q8_0) | dict(file_type=file_types.MOSTLY_Q8_0)
    base = lambda: gemma3(3, 2, 10_000.0, {})
    every_second = dict(window_metadata="pattern", extra=dict(pattern=2))
    llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=64)
    return [
        Case("gemma3", "Window of 8, every second layer global, two rope bases, q/k norm, tied head; F32",
             base(), seed=1, **gemma, **every_second),
        Case("gemma3-bf16", "The gemma3 case with BF16 matrices", base(), seed=1, **gemma, **every_second, **bf16),
        Case("gemma3-q8_0", "The gemma3 case with Q8_0 matrices", base(), seed=1, **gemma, **every_second, **q8_0),
        Case("gemma3-linear", "Positions of global layers divided by 8, one key head, one flag per layer; F16",
             gemma3(3, 3, 20_000.0, dict(rope_type="linear", factor=8.0), num_key_value_heads=1),
             seed=2, window_metadata="layers", **gemma, **f16),
        Case("gemma3-default-window", "Seven layers, neither window pattern nor local base in the metadata; Q8_0",
             gemma3(7, 6, 10_000.0, {}, num_key_value_heads=1, num_attention_heads=2),
             seed=3, **gemma, **q8_0),
        Case("qwen2", "Biases on q, k and v, untied head; F32",
             Qwen2Config(**SIZES | dict(intermediate_size=64), tie_word_embeddings=False,
                         rope_parameters=rope(1_000_000.0)), seed=5, **qwen),
        Case("qwen2-tied", "Biases, tied head, one key head; BF16",
             Qwen2Config(**SIZES | dict(num_key_value_heads=1), tie_word_embeddings=True,
                         rope_parameters=rope(10_000.0)), seed=6, **qwen, **bf16),
        Case("llama", "Untied head; F32",
             LlamaConfig(**SIZES | dict(intermediate_size=64), tie_word_embeddings=False,
                         rope_parameters=rope(10_000.0)), seed=7, **llama),
        Case("llama-llama3-scaling", "Frequency factors of Llama 3.1, heads wider than hidden / heads, tied head; F16",
             LlamaConfig(**SIZES, head_dim=32, tie_word_embeddings=True,
                         rope_parameters=rope(500_000.0, **llama3)), seed=8, **llama, **f16),
        Case("llama-linear", "Positions divided by 4, one key head; Q8_0",
             LlamaConfig(**SIZES | dict(num_key_value_heads=1), tie_word_embeddings=False,
                         rope_parameters=rope(10_000.0, rope_type="linear", factor=4.0)), seed=9, **llama, **q8_0),
        Case("llama-yarn", "YaRN by a factor of 4 from a context of 32; F16",
             LlamaConfig(**SIZES | dict(max_position_embeddings=128), tie_word_embeddings=False,
                         rope_parameters=rope(10_000.0, rope_type="yarn", factor=4.0,
                                              original_max_position_embeddings=32)), seed=10, **llama, **f16),
        Case("llama-mixed-quants", "Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 matrices",
             LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=rope(10_000.0)),
             seed=11, matrix_type=mixed_blocks, file_type=file_types.MOSTLY_Q4_0, **llama),
        Case("llama-k-quants", "Matrices of random Q2_K, Q3_K, Q4_K, Q5_K and Q6_K blocks",
             LlamaConfig(**SIZES | dict(hidden_size=256, intermediate_size=256, num_hidden_layers=2,
                                        num_attention_heads=2, num_key_value_heads=1, head_dim=128),
                         tie_word_embeddings=False, rope_parameters=rope(10_000.0)),
             seed=4, matrix_type=mixed_k_blocks, file_type=file_types.MOSTLY_Q4_K_M, **llama),
    ]


def random_weights(model, seed):
    """Replaces every parameter: activations of order one everywhere, norms and biases that cannot be left out unnoticed."""
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            if name.endswith("norm.weight"):
                centre = 0.0 if isinstance(model, Gemma3ForCausalLM) else 1.0
                if "post_attention" in name or "post_feedforward" in name:
                    # Layers that outweigh the embedding keep continuations out of short loops.
                    centre += 1.0
                # Multiples of 2^-10, so that adding the 1 of Gemma's norms is exact.
                values = np.round((centre + generator.normal(0, 0.3, shape)) * 1024) / 1024
            elif name.endswith(".bias"):
                values = generator.normal(0, 0.25, shape)
            elif "embed_tokens" in name or "lm_head" in name:
                # With a tied head a larger embedding would make every model repeat its last token.
                gain = 1.0 if model.config.tie_word_embeddings else 2.0
                values = generator.normal(0, gain / math.sqrt(shape[1]), shape)
            else:
                gain = 1.2
                values = generator.normal(0, gain / math.sqrt(shape[1]), shape)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def random_k_blocks(shape, deviation, matrix_type, generator):
    """Random valid blocks of a type that PyPI's gguf reads but cannot write, scaled to `deviation` around a mean of 0."""
    block_bytes = gguf.GGML_QUANT_SIZES[matrix_type][1]
    blocks = generator.integers(0, 256, (shape[0] * shape[1] // 256, block_bytes), dtype=np.uint8)
    scale_at, minimum_at = {
        Type.Q2_K: (80, 82), Type.Q3_K: (108, None), Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208, None),
    }[matrix_type]

    def values(scale, minimum):
        for at, value in ((scale_at, scale), (minimum_at, minimum)):
            if at is not None:
                blocks[:, at:at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
        return gguf.quants.dequantize(blocks.reshape(shape[0], -1), matrix_type)

    minimum = 0.0
    if minimum_at is not None:
        minimum = -values(1.0, 0.0).mean() / values(0.0, 1.0).mean()
    scale = deviation / (values(1.0, 0.0) + (values(0.0, minimum) if minimum else 0.0)).std()
    dequantized = values(scale, scale * minimum)
    return blocks.reshape(shape[0], -1), dequantized


def encode(values, matrix_type, generator):
    """What is stored and what it means: (array for the writer, float32 values)."""
    if matrix_type == Type.F32:
        return values, values
    if matrix_type == Type.F16:
        stored = values.astype(np.float16)
        return stored, stored.astype(np.float32)
    if matrix_type in K_TYPES:
        return random_k_blocks(values.shape, values.std(), matrix_type, generator)
    stored = gguf.quants.quantize(values, matrix_type)
    return stored, gguf.quants.dequantize(stored, matrix_type)


def interleave_rows(rows, heads):
    """Llama's q and k rows in the order of interleaved rotation: of each head, rows 0, h/2, 1, h/2 + 1, .."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def store_weights(case, model, writer, plain):
    """Writes every tensor and sets the model's parameters to what a reader of the file will see."""
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == case.architecture)
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    generator = np.random.default_rng(case.seed + 1000)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stem, suffix = name.rsplit(".", 1)
            stored_name = f"{names.get_name(stem)}.{suffix}"
            values = parameter.numpy().copy()
            if values.ndim == 1:
                if case.architecture == "gemma3":
                    values = values + np.float32(1.0)
                writer.add_tensor(stored_name, values, raw_dtype=Type.F32)
                continue
            matrix_type = case.matrix_type(stored_name)
            stored, meaning = encode(values, matrix_type, generator)
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(meaning, dtype=np.float32)))
            if plain:
                matrix_type, stored = Type.F32, parameter.numpy().copy()
            if case.architecture == "llama" and "q_proj" in name:
                stored = interleave_rows(stored, model.config.num_attention_heads)
            if case.architecture == "llama" and "k_proj" in name:
                stored = interleave_rows(stored, model.config.num_key_value_heads)
            writer.add_tensor(stored_name, stored, raw_dtype=matrix_type)


def llama3_factors(config):
    """What divides the unscaled frequencies, from the frequencies that transformers computes."""
    scaled, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    dims = config.head_dim
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, dims, 2, dtype=torch.float32) / dims)
    return (plain / scaled).numpy().astype(np.float32)


def write_metadata(case, config, writer):
    writer.add_type("model")
    writer.add_name(f"anymlx golden {case.name}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if case.architecture == "gemma3" or head_dim != config.hidden_size // config.num_attention_heads:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if case.architecture == "llama":
        writer.add_rope_dimension_count(head_dim)
    if case.architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        if case.window_metadata is not None:
            writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
        if case.window_metadata == "pattern":
            writer.add_sliding_window_pattern(case.extra["pattern"])
        if case.window_metadata == "layers":
            writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    writer.add_file_type(case.file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab_size)


def logits_of(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits


def continue_greedily(model, tokens):
    """Continuations [prompts, CONTINUATION] and the smallest distance between the best and the second logit of each."""
    margins = torch.full((tokens.shape[0],), math.inf)
    start = tokens.shape[1]
    for _ in range(CONTINUATION):
        best = logits_of(model, tokens)[:, -1].topk(2)
        margins = torch.minimum(margins, best.values[:, 0] - best.values[:, 1])
        tokens = torch.cat([tokens, best.indices[:, :1]], dim=1)
    return tokens[:, start:], margins


def choose_prompt(model, seed):
    """Of many random prompts, the one whose continuation is least in doubt, among continuations that are not a short loop."""
    prompts = np.random.default_rng(seed + 2000).integers(0, VOCABULARY, (PROMPTS_TRIED, TOKENS))
    prompts = torch.from_numpy(prompts)
    continuations, margins = continue_greedily(model, prompts)
    distinct = torch.tensor([len(set(row.tolist())) for row in continuations])
    varied = distinct >= 6
    assert varied.any(), f"every continuation is a loop of at most {distinct.max()} tokens"
    return prompts[torch.where(varied, margins, -1.0).argmax()][None]


def build(case, path, plain=False):
    """Writes the model file and returns the model as a reader of the file sees it. `plain` writes the same values as F32."""
    model = case.model_class._from_config(case.config, attn_implementation="eager", dtype=torch.float32).eval()
    random_weights(model, case.seed)
    writer = gguf.GGUFWriter(path, case.architecture)
    write_metadata(case, model.config, writer)
    if model.config.rope_parameters.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(model.config), raw_dtype=Type.F32)
    store_weights(case, model, writer, plain)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def make(case, output):
    model = build(case, output / f"{case.name}.gguf")
    tokens = choose_prompt(model, case.seed)
    continuation, margin = continue_greedily(model, tokens)
    logits = logits_of(model, tokens)[0]
    noise = (logits_of(model.double(), tokens)[0] - logits).abs().max()
    (output / f"{case.name}.logits").write_bytes(logits.numpy().astype("<f4").tobytes())
    record = dict(
        description=case.description,
        architecture=case.architecture,
        vocabulary=VOCABULARY,
        tokens=tokens[0].tolist(),
        logits_deviation=float(f"{logits.std():.4g}"),
        logits_noise=float(f"{noise:.2g}"),
        continuation=continuation[0].tolist(),
        continuation_margin=float(f"{margin.item():.4g}"),
        versions=dict(
            torch=torch.__version__, transformers=transformers.__version__, gguf=gguf_version(),
            numpy=np.__version__, python=platform.python_version(),
        ),
    )
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
    (output / f"{case.name}.json").write_text(f"{{\n{lines}\n}}\n")
    print(f"{case.name}: deviation {record['logits_deviation']}, noise {record['logits_noise']}, "
          f"margin {record['continuation_margin']}, continuation {record['continuation']}")


def gguf_version():
    from importlib.metadata import version
    return version("gguf")


def compare(case, folder, program):
    """Runs llama.cpp on the file and on the same values in F32: the largest differences of its logits from the record, in
    standard deviations of the logits. Only the second must be small, as llama.cpp rounds activations to fit the matrices."""
    record = json.loads((folder / f"{case.name}.json").read_text())
    expected = np.fromfile(folder / f"{case.name}.logits", "<f4").reshape(TOKENS, VOCABULARY)

    def difference(model):
        command = [program, str(model), *map(str, record["tokens"])]
        done = subprocess.run(command, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{case.name}: {program} failed\n{done.stderr.decode()[-2000:]}")
        actual = np.frombuffer(done.stdout, "<f4").reshape(TOKENS, VOCABULARY)
        return np.abs(actual - expected).max() / expected.std()

    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "plain.gguf"
        build(case, plain, plain=True)
        as_stored, as_f32 = difference(folder / f"{case.name}.gguf"), difference(plain)
    print(f"{case.name}: as stored {as_stored:.1e}, as F32 {as_f32:.1e}")
    # llama.cpp looks the GELU of Gemma up in a table of float16.
    return as_f32 < (4e-3 if case.architecture == "gemma3" else 1e-4) and as_stored < 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="make only these cases")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--compare", metavar="PROGRAM", help="compare the records with llama.cpp instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    chosen = [case for case in cases() if not arguments.only or case.name in arguments.only]
    if not chosen:
        sys.exit(f"no such case; there are {', '.join(case.name for case in cases())}")
    if arguments.compare:
        results = [compare(case, arguments.output, arguments.compare) for case in chosen]
        sys.exit(0 if all(results) else 1)
    for case in chosen:
        make(case, arguments.output)


if __name__ == "__main__":
    main()
