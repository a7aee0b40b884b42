"""Makes the checkpoints of this folder: tiny random models in Hugging Face's layout, converted and quantised by `mlx_lm.convert`, and
what MLX computes for them on the CPU.

    python make.py [--only NAME ..] [--output FOLDER]

For each case it writes the folder NAME (config, safetensors, tokenizer), NAME.json (input, greedy continuation, versions) and
NAME.logits (little-endian float32, [tokens, vocabulary]). The README says what is needed and what the fields mean.
"""

import argparse
import importlib.metadata
import json
import math
import platform
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm import convert
from mlx_lm.utils import dequantize_model, load_model
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY = 320
TOKENS = 29
CONTINUATION = 16
PROMPTS_TRIED = 256
WEIGHT_FILES = ("config.json", "model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

TEXTS = [
    "", " ", "Hello, world!", "  two spaces and\ttabs\n\nlines ", "naïve café 你好 🤦🏼‍♂️ e\u0301", "<s>x</s>", "a<|end|>b", "<|end|>",
    "3.14159 2024 don't I'll WE'VE", "<0x41> ▁ under_score", "\u0000\u001f", "user turn<|end|>\nassistant",
]
TEXT_CHECKPOINTS = ("qwen2-affine-4bit", "gemma3-bf16")
TRAINING_TEXT = [
    "The capital of France is Paris, and the river that runs through it is the Seine.",
    "don't I'll we've they're 3.14159 and 2024, naïve café",
    "for i in range(10):\n    print(i)\n\n",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# One configuration of each group size for each number of bits, dealt out to the layers of a model in turn.
COMBINATIONS = [(bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]


@dataclass
class Case:
    name: str
    description: str
    config: dict
    seed: int
    dtype: str = "float32"
    # Arguments of `mlx_lm.convert`; None leaves the checkpoint as Hugging Face has it.
    convert: dict | None = field(default_factory=dict)
    shards: int = 1
    tokenizer: str = "byte-level"


def base(model_type, **changes):
    return dict(
        model_type=model_type, vocab_size=VOCABULARY, hidden_size=128, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=256, rms_norm_eps=1e-6,
        tie_word_embeddings=False, hidden_act="silu", rope_theta=10000.0, bos_token_id=1, eos_token_id=2,
    ) | changes


def gemma3(**changes):
    return base(
        "gemma3_text", tie_word_embeddings=True, sliding_window=8, sliding_window_pattern=2, query_pre_attn_scalar=24,
        rope_theta=1000000.0, rope_local_base_freq=10000.0, hidden_activation="gelu_pytorch_tanh",
    ) | changes


def dealt(first):
    """Gives every matrix another packing, beginning with combination `first`; one stays as it is."""
    seen = []

    def predicate(path, module):
        if not hasattr(module, "to_quantized"):
            return False
        seen.append(path)
        if path.endswith("layers.1.self_attn.v_proj"):
            return False
        bits, group = COMBINATIONS[(first + len(seen) - 1) % len(COMBINATIONS)]
        return {"bits": bits, "group_size": group, "mode": "affine"}

    return predicate


def quantised(mode="affine", **arguments):
    return dict(quantize=True, q_mode=mode) | arguments


def cases():
    llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    qwen2 = dict(tie_word_embeddings=True, rope_theta=1000000.0)
    return [
        Case("llama-affine", "Another packing for each matrix, one of them unquantised; F16 scales", base("llama"), seed=1,
             dtype="float16", convert=quantised(q_group_size=32, quant_predicate=dealt(0))),
        Case("llama-affine-more", "The packings that llama-affine does not reach; F32 scales", base("llama"), seed=2,
             convert=quantised(q_group_size=32, quant_predicate=dealt(9))),
        Case("qwen2-affine-4bit", "The usual packing: 4 bits, groups of 64, BF16 scales, tied head", base("qwen2", **qwen2), seed=3,
             dtype="bfloat16", convert=quantised()),
        Case("gemma3-affine-mixed", "MLX's recipe of 3 and 6 bits; BF16", gemma3(), seed=4, dtype="bfloat16",
             convert=quantised(quant_predicate="mixed_3_6")),
        Case("llama-mxfp4", "4-bit floating point, scales are powers of two", base("llama"), seed=5, dtype="bfloat16",
             convert=quantised("mxfp4")),
        Case("qwen2-nvfp4", "4-bit floating point, 8-bit floating-point scales", base("qwen2", **qwen2), seed=6, dtype="bfloat16",
             convert=quantised("nvfp4")),
        Case("gemma3-mxfp8", "8-bit floating point, scales are powers of two", gemma3(), seed=7, dtype="bfloat16",
             convert=quantised("mxfp8")),
        Case("gemma3-bf16", "Unquantised, by mlx_lm.convert; BF16", gemma3(), seed=8, dtype="bfloat16", tokenizer="characters"),
        Case("llama-sharded", "As Hugging Face publishes: three shards and an index, rope scaling of Llama 3.1; F16",
             base("llama", rope_theta=500000.0, rope_scaling=llama3), seed=9, dtype="float16", convert=None, shards=3),
        Case("qwen2-hf", "As Hugging Face publishes: one file; F32", base("qwen2", num_hidden_layers=1, **qwen2), seed=10, convert=None),
    ]


def weight_shapes(config):
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query, key_value = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    gemma = config["model_type"] == "gemma3_text"
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for index in range(config["num_hidden_layers"]):
        layer = {
            "self_attn.q_proj.weight": (query, hidden), "self_attn.k_proj.weight": (key_value, hidden),
            "self_attn.v_proj.weight": (key_value, hidden), "self_attn.o_proj.weight": (hidden, query),
            "mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden), "mlp.down_proj.weight": (hidden, inner),
            "input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,),
        }
        if gemma:
            layer |= {
                "pre_feedforward_layernorm.weight": (hidden,), "post_feedforward_layernorm.weight": (hidden,),
                "self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,),
            }
        if config["model_type"] == "qwen2":
            layer |= {"self_attn.q_proj.bias": (query,), "self_attn.k_proj.bias": (key_value,), "self_attn.v_proj.bias": (key_value,)}
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


def random_weights(case):
    generator = np.random.default_rng(case.seed)
    weights = {}
    for name, shape in weight_shapes(case.config).items():
        if name.endswith("norm.weight"):
            centre = 0.0 if case.config["model_type"] == "gemma3_text" else 1.0
            values = centre + generator.normal(0, 0.3, shape)
        elif name.endswith(".bias"):
            values = generator.normal(0, 0.25, shape)
        else:
            gain = 2.0 if "lm_head" in name else 1.2
            values = generator.normal(0, gain / math.sqrt(shape[1]), shape)
        weights[name] = mx.array(values.astype(np.float32)).astype(getattr(mx, case.dtype))
    return weights


def make_tokenizer(kind):
    special = ["<unk>", "<s>", "</s>", "<|end|>"]
    added = [AddedToken(text, special=True, normalized=False) for text in special]
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        # As Gemma's: spaces as marks, unknown characters as bytes.
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        special = special + [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = ["▁"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    if kind != "byte-level":
        # Byte tokens are ordinary entries, which no text is.
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = state["added_tokens"][: len(added)]
        tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def write_source(case, folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(case.config | {"torch_dtype": case.dtype}, indent=2))
    weights = random_weights(case)
    if case.shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    else:
        names = [f"model-{index + 1:05}-of-{case.shards:05}.safetensors" for index in range(case.shards)]
        index = {name: names[position * case.shards // len(weights)] for position, name in enumerate(weights)}
        for file in names:
            shard = {name: values for name, values in weights.items() if index[name] == file}
            mx.save_safetensors(str(folder / file), shard, metadata={"format": "pt"})
        text = json.dumps({"metadata": {}, "weight_map": index}, indent=2)
        (folder / "model.safetensors.index.json").write_text(text)
    make_tokenizer(case.tokenizer).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
                "unk_token": "<unk>", "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def logits_of(model, tokens):
    return np.array(model(mx.array(tokens)).astype(mx.float32))


def choose_input(model, seed, vocabulary):
    """An input whose greedy continuation is not in doubt and not a short loop."""
    tokens = np.random.default_rng(seed + 2000).integers(4, vocabulary, (PROMPTS_TRIED, TOKENS))
    margins = np.full(PROMPTS_TRIED, np.inf)
    for _ in range(CONTINUATION):
        ordered = np.argsort(logits := logits_of(model, tokens)[:, -1], axis=-1)
        best, second = ordered[:, -1:], ordered[:, -2:-1]
        gap = np.take_along_axis(logits, best, -1) - np.take_along_axis(logits, second, -1)
        margins = np.minimum(margins, gap[:, 0])
        tokens = np.concatenate([tokens, best], axis=1)
    variety = np.array([len(set(row[TOKENS:])) for row in tokens])
    chosen = int(np.argmax(np.where(variety >= min(variety.max(), 8), margins, -1)))
    return tokens[chosen, :TOKENS], tokens[chosen, TOKENS:], float(margins[chosen])


def look_up_in_float32(self, ids, look_up=nn.QuantizedEmbedding.__call__):
    """The floating-point modes unpack to BF16, which is exact; what is computed with it afterwards is not."""
    return look_up(self, ids).astype(mx.float32)


def record(case, folder):
    vocabulary = case.config["vocab_size"]
    model, config = load_model(folder, lazy=False)
    # The reference computes in float32 with the stored values: activations of 16 bits would hide small mistakes.
    nn.QuantizedEmbedding.__call__ = look_up_in_float32
    model.set_dtype(mx.float32)
    unpacked = load_model(folder, lazy=False)[0]
    if "quantization" in config:
        unpacked = dequantize_model(unpacked)
    unpacked.set_dtype(mx.float32)
    # MLX multiplies packed matrices slowly on CPUs, so that the search uses unpacked ones.
    tokens, continuation, margin = choose_input(unpacked, case.seed, vocabulary)
    logits = logits_of(model, tokens[None])[0]
    noise = float(np.abs(logits_of(unpacked, tokens[None])[0] - logits).max())
    packages = ("mlx", "mlx-lm", "numpy", "tokenizers", "transformers")
    versions = {name: importlib.metadata.version(name) for name in packages}
    description = dict(
        description=case.description, architecture=case.config["model_type"].removesuffix("_text"), vocabulary=vocabulary,
        tokens=tokens.tolist(), logits_deviation=float(logits.std()), logits_noise=noise, continuation=continuation.tolist(),
        continuation_margin=margin, versions=versions | {"python": platform.python_version()},
    )
    return description, logits.astype("<f4")


def make(case, output):
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        write_source(case, source)
        result = source
        if case.convert is not None:
            result = Path(scratch) / "converted"
            convert(str(source), str(result), dtype=case.dtype, **case.convert)
        description, logits = record(case, result)
        target = output / case.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in sorted(result.iterdir()):
            if file.suffix == ".safetensors" or file.name in (*WEIGHT_FILES, *TOKENIZER_FILES, "model.safetensors.index.json"):
                shutil.copy(file, target / file.name)
    (output / f"{case.name}.json").write_text(json.dumps(description, indent=1) + "\n")
    (output / f"{case.name}.logits").write_bytes(logits.tobytes())
    shown = {key: description[key] for key in ("logits_deviation", "logits_noise", "continuation_margin")}
    print(case.name, shown, {name: str(value.dtype) for name, value in list(tree_flatten(mx.load(str(next(target.glob('*.safetensors'))))))[:1]})


def write_texts(output):
    """Ids of texts, with control tokens read as such and as text."""
    record = {"versions": {"tokenizers": importlib.metadata.version("tokenizers")}, "cases": []}
    for checkpoint in TEXT_CHECKPOINTS:
        tokenizer = Tokenizer.from_file(str(output / checkpoint / "tokenizer.json"))
        for special in (True, False):
            tokenizer.encode_special_tokens = not special
            for text in TEXTS:
                ids = tokenizer.encode(text, add_special_tokens=True).ids
                record["cases"].append(dict(checkpoint=checkpoint, text=text, parse_special=special, ids=ids,
                                            decoded=tokenizer.decode(ids, skip_special_tokens=True)))
    folder = output / "tokenizer"
    folder.mkdir(exist_ok=True)
    (folder / "texts.json").write_text(json.dumps(record, indent=1, ensure_ascii=True) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    mx.set_default_device(mx.cpu)
    for case in cases():
        if not arguments.only or case.name in arguments.only:
            make(case, arguments.output)
    if all((arguments.output / name).exists() for name in TEXT_CHECKPOINTS):
        write_texts(arguments.output)


if __name__ == "__main__":
    main()
