#!/usr/bin/env python3
"""Writes `types.txt`: the type that llama.cpp's `llama-quantize` gives to each matrix, by recipe and model.

    pip install gguf==0.19.0 numpy==2.4.6
    python make.py .../llama-quantize

The tool's version is that of PyPI `llama-cpp-python` 0.3.36. It is run on models of noise with few columns; `q2_k_s` is left out, which it makes with an importance matrix only. Lines are
`MODEL RECIPE TYPE TENSOR..`, tensors of a type being listed without `.weight`.
"""

import collections
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).parent
RECIPES = """q8_0 q6_k q5_k_m q5_k_s q5_0 q5_1 q4_k_m q4_k_s q4_0 q4_1 iq4_nl iq4_xs q3_k_l q3_k_m q3_k_s q2_k tq1_0
tq2_0""".split()
# Name: layers, heads, key-value heads, columns of the embedding, columns of `ffn_down`, tied.
MODELS = {
    "separate": (17, 8, 8, 256, 512, False),
    "grouped": (24, 8, 2, 256, 256, False),
    "tied": (18, 4, 1, 256, 512, True),
    "odd": (9, 4, 1, 160, 512, True),
}


def write(path, layers, heads, kv_heads, hidden, feed_forward, tied):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(1)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(32)
    rng = np.random.default_rng(1)

    def add(name, *shape):
        writer.add_tensor(name + ".weight", rng.standard_normal(shape).astype(np.float16 if len(shape) > 1 else np.float32))

    add("token_embd", 32, hidden)
    add("output_norm", hidden)
    if not tied:
        add("output", 32, hidden)
    for layer in range(layers):
        for name, shape in {
            "attn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (hidden * kv_heads // heads, hidden),
            "attn_v": (hidden * kv_heads // heads, hidden), "attn_output": (hidden, hidden), "ffn_norm": (hidden,),
            "ffn_gate": (feed_forward, hidden), "ffn_up": (feed_forward, hidden), "ffn_down": (hidden, feed_forward),
        }.items():
            add(f"blk.{layer}.{name}", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for model, parameters in MODELS.items():
            source, target = f"{folder}/in.gguf", f"{folder}/out.gguf"
            write(source, *parameters)
            for recipe in RECIPES:
                subprocess.run([sys.argv[1], source, target, recipe, "1"], check=True, capture_output=True)
                types = collections.defaultdict(list)
                for tensor in gguf.GGUFReader(target).tensors:
                    if len(tensor.shape) > 1:
                        types[tensor.tensor_type.name].append(tensor.name.removesuffix(".weight"))
                lines += [f"{model} {recipe} {name} {' '.join(sorted(found))}\n" for name, found in sorted(types.items())]
    (HERE / "types.txt").write_text("".join(lines))


main()
