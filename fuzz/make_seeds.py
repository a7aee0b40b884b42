#!/usr/bin/env python3
"""Writes the seeds of the corpora: `corpus/TARGET/valid-*` and `corpus/TARGET/broken-*`.

    python make_seeds.py

Every file is put together by hand, so that it may break any rule. The broken classes are a superset of those in llama.cpp's
tests/test-gguf.cpp. `crates/formats/tests/hostile` and
`crates/lm/tests/hostile` check that each seed is judged as its name says.
"""

import base64
import json
import re
import struct
from pathlib import Path

HERE = Path(__file__).parent

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
BIG = [2**31, 2**32, 2**62, 2**63, 2**64 - 1]


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return u64(len(data)) + data


def pair(key, value_type, value):
    return text(key) + u32(value_type) + value


def tensor(name, shape, type_id, offset):
    return text(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(type_id) + u64(offset)


def gguf(pairs=(), tensors=(), data=0, *, version=3, magic=b"GGUF", n_tensors=None, n_pairs=None, align=32):
    header = magic + u32(version)
    header += u64(len(tensors) if n_tensors is None else n_tensors)
    header += u64(len(pairs) if n_pairs is None else n_pairs)
    header += b"".join(pairs) + b"".join(tensors)
    if data:
        header += bytes(-len(header) % align) + bytes(range(256)) * (data // 256) + bytes(range(data % 256))
    return header


ARCH = pair("general.architecture", STRING, text("llama"))
ONE = tensor("w", [8, 2], 0, 0)


def array(element, values, count=None):
    return u32(element) + u64(len(values) if count is None else count) + b"".join(values)


SCALARS = [
    pair("u8", U8, b"\xff"), pair("i8", I8, b"\x80"), pair("u16", U16, b"\xff\xff"), pair("i16", I16, b"\0\x80"),
    pair("u32", U32, u32(7)), pair("i32", I32, u32(2**32 - 7)), pair("f32", F32, struct.pack("<f", 0.5)),
    pair("bool", BOOL, b"\1"), pair("string", STRING, text("é")), pair("u64", U64, u64(2**63)),
    pair("i64", I64, u64(1)), pair("f64", F64, struct.pack("<d", -2.5)),
]
ARRAYS = [
    pair("a.u8", ARRAY, array(U8, [b"\1", b"\2"])), pair("a.f32", ARRAY, array(F32, [struct.pack("<f", float("nan"))])),
    pair("a.bool", ARRAY, array(BOOL, [b"\0", b"\1"])), pair("a.empty", ARRAY, array(STRING, [])),
    pair("a.text", ARRAY, array(STRING, [text(""), text("<unk>"), text("日本")])),
    pair("a.nested", ARRAY, array(ARRAY, [array(U32, [u32(1)]), array(ARRAY, [array(I64, [u64(2)])])])),
]
# Block length and bytes of every block type.
BLOCKS = {
    2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110), 12: (256, 144),
    13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50),
    20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 29: (256, 56), 34: (256, 54), 35: (256, 66),
    39: (32, 17), 40: (64, 36), 41: (128, 18),
}


def every_block_type():
    tensors, offset = [], 0
    for type_id, (length, size) in BLOCKS.items():
        tensors.append(tensor(f"t{type_id}", [length, 1], type_id, offset))
        offset += -(-size // 32) * 32
    return gguf([ARCH], tensors, offset)


def gguf_seeds():
    yield "valid-empty", gguf()
    yield "valid-version-2", gguf([ARCH], version=2)
    yield "valid-scalars", gguf(SCALARS)
    yield "valid-arrays", gguf(ARRAYS)
    yield "valid-tensors", gguf([ARCH], [ONE, tensor("scalar", [], 24, 64), tensor("f16", [3], 1, 96)], 102)
    yield "valid-backwards", gguf([], [tensor("a", [4], 0, 32), tensor("b", [8], 0, 0)], 48)
    yield "valid-block-types", every_block_type()
    yield "valid-q2_0", gguf([], [tensor("w", [64], 42, 0)], 18)
    yield "valid-alignment", gguf([pair("general.alignment", U32, u32(8))], [tensor("a", [1], 24, 8)], 9, align=8)
    yield "broken-nothing", b""
    yield "broken-magic", gguf(magic=b"FUGU")
    for version in (0, 1, 4, 99, 2**32 - 1):
        yield f"broken-version-{version}", gguf(version=version)
    yield "broken-big-endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    for count in BIG + [1]:
        yield f"broken-tensor-count-{count}", gguf(n_tensors=count)
        yield f"broken-pair-count-{count}", gguf(n_pairs=count)
        yield f"broken-array-count-{count}", gguf([pair("a", ARRAY, array(U64, [u64(1)], max(count, 2)))])
        yield f"broken-strings-count-{count}", gguf([pair("a", ARRAY, array(STRING, [text("x")], max(count, 2)))])
    for length in BIG:
        yield f"broken-key-length-{length}", gguf([u64(length) + b"key" + u32(U32) + u32(1)])
        yield f"broken-name-length-{length}", gguf([], [u64(length) + b"name" + u32(0) + u32(0) + u64(0)], 32)
        yield f"broken-string-length-{length}", gguf([pair("a", STRING, u64(length) + b"x")])
    yield "broken-empty-key", gguf([pair("", U32, u32(1))])
    yield "broken-empty-name", gguf([], [tensor("", [1], 0, 0)], 32)
    yield "broken-utf8", gguf([pair(b"\xff", U32, u32(1))])
    yield "broken-split-character", gguf([pair("a", ARRAY, array(STRING, [text(b"\xc3"), text(b"\xa9")]))])
    for value_type in (13, 255, 2**32 - 1):
        yield f"broken-value-type-{value_type}", gguf([pair("a", value_type, u64(0))])
        yield f"broken-element-type-{value_type}", gguf([pair("a", ARRAY, array(value_type, [b"\0"]))])
    yield "broken-bool", gguf([pair("a", BOOL, b"\2")])
    deep = array(U8, [])
    for _ in range(8):
        deep = array(ARRAY, [deep])
    yield "broken-deep", gguf([pair("a", ARRAY, deep)])
    yield "broken-duplicate-key", gguf([ARCH, ARCH])
    yield "broken-duplicate-name", gguf([], [ONE, tensor("w", [4], 0, 64)], 80)
    for alignment in (0, 3, 24, 2**32 - 1):
        yield f"broken-alignment-{alignment}", gguf([pair("general.alignment", U32, u32(alignment))], [ONE], 64)
    yield "broken-alignment-type", gguf([pair("general.alignment", U64, u64(32))], [ONE], 64)
    yield "broken-alignment-huge", gguf([pair("general.alignment", U32, u32(2**31))], [ONE], 64)
    for dimensions in (5, 255, 2**32 - 1):
        yield f"broken-dimensions-{dimensions}", gguf([], [text("w") + u32(dimensions) + u64(1) * 5 + u32(0) + u64(0)], 64)
    yield "broken-zero-extent", gguf([], [tensor("w", [4, 0], 0, 0)], 64)
    for index, shape in enumerate([[2**63], [2**32, 2**32], [2**16] * 4, [2**62], [2**64 - 1, 2**64 - 1]]):
        yield f"broken-shape-{index}", gguf([], [tensor("w", shape, 0, 0)], 64)
    for type_id in (4, 5, 9, 31, 36, 43, 99, 2**31, 2**32 - 1):
        yield f"broken-type-{type_id}", gguf([], [tensor("w", [256], type_id, 0)], 2048)
    yield "broken-row", gguf([], [tensor("w", [100], 12, 0)], 256)
    for offset in (8, 64, 2**63, 2**64 - 32):
        yield f"broken-offset-{offset}", gguf([], [tensor("w", [8, 2], 0, offset)], 64)
    yield "broken-overlap", gguf([], [tensor("a", [9], 0, 0), tensor("b", [4], 0, 32)], 64)
    yield "broken-truncated-data", gguf([ARCH], [ONE], 63)
    whole = gguf([ARCH] + SCALARS, [ONE], 64)
    for length in (3, 7, 23, 40, 60, 150, len(whole) - 65):
        yield f"broken-truncated-{length}", whole[:length]


def several(*inputs):
    return bytes([len(inputs)]) + b"".join(struct.pack("<H", len(each)) for each in inputs) + b"".join(inputs)


def part(number, count, total, tensors=(), extra=()):
    pairs = [
        pair("split.no", U16, struct.pack("<H", number)), pair("split.count", U16, struct.pack("<H", count)),
        pair("split.tensors.count", I32, struct.pack("<i", total)), *extra,
    ]
    return gguf(pairs, [tensor(name, [3], 24, 32 * index) for index, name in enumerate(tensors)], 32 * len(tensors))


def split_seeds():
    a, b, c = part(0, 3, 3, ["a", "b"], [ARCH]), part(1, 3, 3), part(2, 3, 3, ["c"])
    yield "valid-three", several(a, b, c)
    yield "valid-one", several(part(0, 1, 1, ["a"]))
    yield "valid-plain", several(gguf([ARCH], [ONE], 64))
    yield "broken-none", several()
    yield "broken-order", several(a, c, b)
    yield "broken-missing", several(a, b)
    yield "broken-too-many", several(a, b, c, c)
    yield "broken-plain-part", several(a, b, gguf([ARCH], [ONE], 64))
    yield "broken-plain-pair", several(gguf(), gguf())
    yield "broken-count", several(a, b, part(2, 4, 3, ["c"]))
    yield "broken-tensors", several(a, b, part(2, 3, 4, ["c"]))
    yield "broken-fewer", several(a, b, part(2, 3, 3))
    yield "broken-negative", several(part(0, 1, -1))
    yield "broken-duplicate", several(a, b, part(2, 3, 3, ["a"]))
    yield "broken-part", several(a, b"GGUF", c)
    yield "broken-number", several(part(7, 1, 0))


def info(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def header(value, data=0):
    dumped = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return b"\1" + bytes([data]) + dumped.encode()


def raw(value, data=0, length=None):
    dumped = value if isinstance(value, str) else json.dumps(value)
    return u64(len(dumped.encode()) if length is None else length) + dumped.encode() + bytes(data)


def safetensors_seeds():
    two = {"a": info("F32", [2, 3], 0, 24), "b": info("BF16", [], 24, 26)}
    yield "valid-none", header({})
    yield "valid-two", header(two, 26)
    yield "valid-metadata", header({"__metadata__": {"format": "mlx"}, **two}, 26)
    yield "valid-raw", b"\0" + raw(two, 26)
    yield "valid-backwards", header({"a": info("U8", [2], 3, 5), "b": info("U8", [3], 0, 3)}, 5)
    yield "valid-empty-tensor", header({"a": info("U32", [0, 7], 0, 0), "b": info("U32", [1], 0, 4)}, 4)
    types = ["BOOL", "U8", "I8", "F8_E4M3", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "I64", "F64", "C64", "U64"]
    sizes = [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    yield "valid-types", header(
        {name: info(name, [1], start, start + size) for name, start, size in zip(types, starts, sizes)}, sum(sizes)
    )
    yield "broken-nothing", b""
    yield "broken-short", b"\0\1\2\3"
    for length in [3, 100_000_001] + BIG:
        yield f"broken-length-{length}", b"\0" + raw("{}", length=length)
    for index, value in enumerate(["", "[]", "null", "{", "{}}", '{"a"}', '{"a":1}', '{"a":{}}', "{}x", '{"\\ud800":1}']):
        yield f"broken-json-{index}", header(value)
    yield "broken-deep", header("[" * 500)
    yield "broken-duplicate", header('{"a":%s,"a":%s}' % (json.dumps(info("U8", [1], 0, 1)), json.dumps(info("U8", [1], 1, 2))), 2)
    yield "broken-duplicate-metadata", header('{"__metadata__":{},"__metadata__":{}}')
    yield "broken-metadata", header({"__metadata__": {"a": 1}})
    yield "broken-type", header({"a": info("Q4_K", [1], 0, 1)}, 1)
    for index, shape in enumerate([[2**63, 2], [2**32, 2**32], [2**64 - 1, 2**64 - 1, 0], [-1], [1.5], [2**64], [1] * 65, 7]):
        yield f"broken-shape-{index}", header({"a": info("F32", shape, 0, 4)}, 4)
    for index, (start, end) in enumerate([(0, 3), (1, 5), (4, 0), (0, 2**64 - 1), (2**64 - 5, 2**64 - 1), (-4, 0)]):
        yield f"broken-offsets-{index}", header({"a": info("F32", [1], start, end)}, 4)
    yield "broken-end", header({"a": info("U8", [2**64 - 1], 0, 2**64 - 1)}, 4)
    yield "broken-overlap", header({"a": info("U8", [3], 0, 3), "b": info("U8", [3], 2, 5)}, 5)
    yield "broken-gap", header({"a": info("U8", [2], 0, 2), "b": info("U8", [2], 3, 5)}, 5)
    yield "broken-uncovered", header({"a": info("U8", [2], 0, 2)}, 3)
    yield "broken-truncated", header({"a": info("U8", [2], 0, 2)}, 1)


def index(weights):
    return json.dumps({"metadata": {"total_size": 9}, "weight_map": weights}).encode()


def shard_seeds():
    def shard(*names):
        return raw({name: info("U8", [1], at, at + 1) for at, name in enumerate(names)}, len(names))

    both = index({"x": "1.safetensors", "y": "2.safetensors"})
    yield "valid-two", several(both, shard("x"), shard("y"))
    yield "valid-extra", several(both, shard("x", "z"), shard("y", "x"))
    yield "valid-one", several(index({"x": "1.safetensors"}), shard("x"))
    yield "valid-none", several(index({}))
    yield "broken-nothing", b""
    yield "broken-swapped", several(both, shard("y"), shard("x"))
    yield "broken-missing-shard", several(both, shard("x"))
    yield "broken-third-shard", several(both, shard("x"), shard("y"), shard("z"))
    yield "broken-missing-tensor", several(both, shard("x"), shard("z"))
    yield "broken-shard", several(both, shard("x"), b"\0" * 9)
    yield "broken-index", several(b"{}", shard("x"))
    yield "broken-path", several(index({"x": "../1"}), shard("x"))


def index_seeds():
    yield "valid-two", index({"x": "a-1.safetensors", "y": "a-2.safetensors", "z": "a-1.safetensors"})
    yield "valid-none", index({})
    yield "valid-bare", b'{"weight_map":{"x":"m.safetensors"},"other":[{"a":null}]}'
    for at, name in enumerate(["../x", "/x", "a/b", "a\\b", "C:x", "", ".", "..", "a\0", "a\n"]):
        yield f"broken-name-{at}", index({"x": name})
    yield "broken-duplicate", b'{"weight_map":{"x":"a","x":"b"}}'
    yield "broken-two-maps", b'{"weight_map":{},"weight_map":{}}'
    yield "broken-no-map", b'{"metadata":{}}'
    yield "broken-map", b'{"weight_map":["x"]}'
    yield "broken-value", b'{"weight_map":{"x":{"y":"z"}}}'
    yield "broken-deep", b'{"a":' * 300
    yield "broken-nothing", b""


def config(quantization):
    return json.dumps({"model_type": "llama", "quantization": quantization, "vocab_size": 7}).encode()


def config_seeds():
    yield "valid-plain", config({"group_size": 64, "bits": 4})
    yield "valid-absent", b'{"model_type":"llama"}'
    yield "valid-null", config(None)
    yield "valid-modes", config({"mode": "mxfp4", "a": {"mode": "nvfp4"}, "b": {"mode": "mxfp8"}, "c": {"bits": 3}})
    yield "valid-layers", config({"group_size": 32, "bits": 6, "lm_head": False, "x.y": True, "z": {"bits": 8, "group_size": 128}})
    yield "valid-others", config({"bits": 8, "list": [1, [2]], "number": -1, "real": 0.5, "text": "t", "nothing": None})
    yield "valid-null-values", config({"bits": None, "group_size": None, "mode": None})
    for at, value in enumerate([0, 7, 9, 2**32, 2**64, -1, 4.0, "4", {}, []]):
        yield f"broken-bits-{at}", config({"bits": value})
        yield f"broken-group-{at}", config({"group_size": value})
    for at, value in enumerate(["int4", "", 4]):
        yield f"broken-mode-{at}", config({"mode": value})
    yield "broken-layer", config({"a": {"bits": 9}})
    yield "broken-global-scale", config({"a": {"mode": "nvfp4", "global_scale": True}})
    yield "broken-duplicate", b'{"quantization":{"bits":4,"bits":4}}'
    yield "broken-duplicate-layer", b'{"quantization":{"a":true,"a":false}}'
    yield "broken-two", b'{"quantization":{},"quantization":{}}'
    yield "broken-kind", config([4, 64])
    yield "broken-deep", b'{"quantization":' + b'{"a":' * 300
    yield "broken-nothing", b""


RECORDS = (HERE / "../crates/lm/tests/hostile/records.rs").read_text()


def keys(name):
    """The keys of a table in records.rs, whose places records name."""
    table = re.search(name + r": \[&str; \d+\] = \[(.*?)\];", RECORDS, re.S)[1]
    return re.findall(r'"([^"]+)"', table)


def short(value):
    data = value if isinstance(value, bytes) else value.encode()
    return bytes([len(data)]) + data


def record(key, value):
    """A record of records.rs. A tuple gives the type's number with the value's bytes."""
    if isinstance(value, tuple):
        kind, data = value
    elif isinstance(value, bool):
        kind, data = 3, bytes([value])
    elif isinstance(value, int):
        kind, data = (0, struct.pack("<I", value)) if 0 <= value < 2**32 else (8, struct.pack("<Q", value % 2**64))
    elif isinstance(value, float):
        kind, data = 2, struct.pack("<f", value)
    elif isinstance(value, str):
        kind, data = 4, short(value)
    else:
        kind = 5 if isinstance(value[0], (str, bytes)) else 6 if isinstance(value[0], float) else 9 if isinstance(value[0], bool) else 7
        pack = {5: short, 6: lambda x: struct.pack("<f", x), 7: lambda x: struct.pack("<b", x), 9: lambda x: bytes([x])}[kind]
        data = bytes([len(value)]) + b"".join(map(pack, value))
    return bytes([key, kind]) + data


def symbols(*texts):
    """The 256 byte symbols and more."""
    return 11, bytes([len(texts)]) + b"".join(map(short, texts))


def records(table, pairs):
    return b"".join(record(table.index(key), value) for key, value in pairs.items())


def tokenizer_seeds():
    table = keys("TOKENIZER_KEYS")

    def seed(**pairs):
        names = {"add_bos": "add_bos_token", "prefix": "add_space_prefix"}
        return b"\1" + records(table, {f"tokenizer.ggml.{names.get(key, key)}": value for key, value in pairs.items()})

    pieces = ["<unk>", "<s>", "</s>", "▁", "H", "e", "l", "o", "ll", "▁H", "▁He"]
    kinds = [2, 3, 3] + [1] * 8
    scores = [0.0] * 3 + [-1.0, -2.0, -3.0, -4.0, -5.0, -0.5, -0.25, -0.125]
    pieces_model = dict(model="llama", tokens=pieces, scores=scores, token_type=kinds)
    bytes_model = dict(model="gpt2", pre="gpt-2", tokens=symbols("He", "ll", "<|end|>"), merges=["H e", "l l"])
    yield "valid-pieces", seed(**pieces_model)
    yield "valid-pieces-ids", seed(**pieces_model, bos_token_id=1, eos_token_id=2, unknown_token_id=0, add_bos=False, prefix=False)
    yield "valid-bytes", seed(**bytes_model)
    yield "valid-bytes-end", seed(**bytes_model, eos_token_id=258)
    pairs = [
        pair("tokenizer.ggml.model", STRING, text("llama")),
        pair("tokenizer.ggml.tokens", ARRAY, array(STRING, [text(piece) for piece in pieces])),
        pair("tokenizer.ggml.scores", ARRAY, array(F32, [struct.pack("<f", score) for score in scores])),
        pair("tokenizer.ggml.token_type", ARRAY, array(I32, [struct.pack("<i", kind) for kind in kinds])),
    ]
    yield "valid-file", b"\0" + gguf(pairs)
    ids_only = {"tokenizer.ggml.model": "no_vocab", "llama.vocab_size": 32, "general.architecture": "llama"}
    yield "valid-ids-only", b"\1" + records(table, ids_only)
    yield "broken-nothing", b""
    yield "broken-merge-longer-than-pieces", seed(**{**bytes_model, "merges": ["Ó e"]})
    yield "broken-empty", seed()
    yield "broken-model", seed(**{**pieces_model, "model": "wordpiece9"})
    yield "broken-model-type", seed(**{**pieces_model, "model": 3})
    yield "broken-no-tokens", seed(model="llama", scores=scores)
    yield "broken-tokens-type", seed(**{**pieces_model, "tokens": 5})
    yield "broken-scores", seed(**{**pieces_model, "scores": [0.0]})
    yield "broken-kinds", seed(**{**pieces_model, "token_type": [1, 2]})
    yield "broken-bos", seed(**pieces_model, bos_token_id=999)
    yield "broken-eos-huge", seed(**pieces_model, eos_token_id=2**63)
    yield "broken-byte-tokens", seed(
        **{**pieces_model, "tokens": pieces + ["<0x41>"], "scores": scores + [0.0], "token_type": kinds + [6]}
    )
    yield "broken-merge-range", seed(**{**bytes_model, "merges": ["H e", "q zzz"]})
    yield "broken-merge-form", seed(**{**bytes_model, "merges": ["He"]})
    yield "broken-merge-spaces", seed(**{**bytes_model, "merges": ["H  e"]})
    yield "broken-no-merges", seed(model="gpt2", pre="gpt-2", tokens=symbols())
    yield "broken-no-symbols", seed(model="gpt2", pre="gpt-2", tokens=["ab", "cd"], merges=["a b"])
    yield "broken-pre", seed(**{**bytes_model, "pre": "unheard-of"})
    yield "broken-file", b"\0" + gguf(pairs)[:-3]
    # Found by the fuzzer: a merge whose name has line breaks.
    yield "broken-merge-line-break", bytes.fromhex(
        "01000404677074320104056770742d32020b03024865026c6c073c7c656e647c3e05050203482065036c200a0a0a0a0a8282"
        "8282828282828282828282828282828282c38c82822b53535353000000058148650306008082828282828282828682c49082"
        "8282000000000000200000000000000000000000000000000000000000000000000000000000000000000000000082828282"
        "82828282828282828282828282828282828200"
    )


def tokenizer_json_seeds():
    def token(identity, content, special=True):
        flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
        return {"id": identity, "content": content, **flags, "special": special}

    def seed(model, **parts):
        names = ["truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"]
        file = {"version": "1.0", **dict.fromkeys(names), "added_tokens": added, **parts, "model": model}
        return json.dumps(file, ensure_ascii=False, separators=(",", ":")).encode()

    added = [token(0, "<unk>"), token(1, "<s>"), token(2, "</s>")]
    texts = ["<unk>", "<s>", "</s>", "H", "e", "l", "o", "Ġ", "ll", "He"]
    vocab = {text: at for at, text in enumerate(texts)}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bpe = {"type": "BPE", "vocab": vocab, "merges": [["l", "l"], ["H", "e"]]}
    pieces = {"type": "BPE", "vocab": {**vocab, "▁": 10, "<0x41>": 11}, "merges": ["l l"], "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [[text, -float(at)] for at, text in enumerate(texts + ["▁"])]}
    words = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    parts = {"type": "WordPiece", "vocab": {**vocab, "##l": 10}, "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9}
    split = {"type": "Split", "pattern": {"Regex": "'s|\\p{L}+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": False}
    whole = {**level, "use_regex": False}
    around = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    spaces = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    back = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    yield "valid-bytes", seed(bpe, pre_tokenizer=level, decoder=level, post_processor=around)
    yield "valid-split", seed(bpe, pre_tokenizer={"type": "Sequence", "pretokenizers": [split, whole]}, decoder=level)
    yield "valid-pieces", seed(
        pieces, normalizer={"type": "Sequence", "normalizers": spaces}, decoder={"type": "Sequence", "decoders": back}
    )
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    yield "valid-unigram", seed(unigram, pre_tokenizer=metaspace, decoder=metaspace, normalizer={"type": "NFKC"})
    yield "valid-words", seed(words, pre_tokenizer={"type": "Whitespace"}, normalizer={"type": "Lowercase"})
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    yield "valid-parts", seed(parts, normalizer=bert, pre_tokenizer={"type": "BertPreTokenizer"}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}
    yield "valid-cut-and-filled", seed(bpe, truncation=cut, padding=fill)
    yield "broken-nothing", b""
    yield "broken-list", b"[]"
    yield "broken-no-model", b'{"version":"1.0","added_tokens":[]}'
    yield "broken-version", seed(bpe, version="9.0")
    yield "broken-truncated", seed(bpe)[:-9]
    yield "broken-model-type", seed({**bpe, "type": "Nothing"})
    yield "broken-merge", seed({**bpe, "merges": [["H", "zzz"]]})
    yield "broken-merge-form", seed({**bpe, "merges": ["He"]})
    yield "broken-merge-three", seed({**bpe, "merges": [["H", "e", "l"]]})
    yield "broken-id-negative", seed({**bpe, "vocab": {"a": -1}})
    yield "broken-id-huge", seed({**bpe, "vocab": {"a": 2**32 - 1}, "merges": []}, added_tokens=[])
    yield "broken-id-wide", seed({**bpe, "vocab": {"a": 2**40}, "merges": []}, added_tokens=[])
    yield "broken-empty", seed({**bpe, "vocab": {}, "merges": []}, added_tokens=[])
    yield "broken-regex", seed(bpe, pre_tokenizer={**split, "pattern": {"Regex": "("}})
    yield "broken-regex-huge", seed(bpe, pre_tokenizer={**split, "pattern": {"Regex": "(((\\w{999}){999}){999}){999}"}})
    for name, pattern in [("behind", "(?<!(" + 40 * "o" + "{488}){999}){999}"), ("ahead", 400 * "(?=\\w)")]:
        yield f"broken-regex-{name}", seed(bpe, pre_tokenizer={**split, "pattern": {"Regex": pattern}})
    yield "valid-regex-endless", seed(bpe, pre_tokenizer={**split, "pattern": {"Regex": "(.*.*.*)*(?=x)(?!x)"}}, post_processor=around)
    yield "broken-unknown", seed({**unigram, "unk_id": 99})
    yield "broken-charsmap", seed(unigram, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    # A table of 3.2 GB in a map of seven bytes
    yield "broken-charsmap-size", seed(unigram, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAinvertAA=="})
    small = base64.b64encode(struct.pack("<I", 1024) + bytes(1024) + b"a\0").decode()
    yield "valid-charsmap", seed(unigram, normalizer={"type": "Precompiled", "precompiled_charsmap": small})
    yield "broken-template", seed(bpe, post_processor={**around, "special_tokens": {}})
    yield "broken-deep", b'{"model":' * 300


def template_seeds():
    yield "valid-plain", b"{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}\n{% endfor %}"
    yield "valid-gemma", (
        b"{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set rest = messages[1:] -%}{%- else -%}"
        b"{%- set rest = messages -%}{%- endif -%}{%- for m in rest -%}{{ '<start_of_turn>' ~ m['role'] }}"
        b"{%- endfor -%}{%- if add_generation_prompt -%}{{ 'x' }}{%- endif -%}"
    )
    yield "valid-macro", b"{% macro f(x) %}{{ x.upper() }}{% endmacro %}{% set ns = namespace(a=1) %}{{ f(eos_token) }}{{ ns.a }}"
    yield "valid-json", b"{{ messages | tojson(indent=2) }}{{ [1, true, {'a': none}] | tojson }}"
    yield "valid-loop", b"{% for n in range(9) %}{% if n is odd %}{% continue %}{% endif %}{{ loop.index0 * n }}{% endfor %}"
    yield "valid-methods", b"{{ messages[0].content.split(' ')[0].replace('a', 'b').strip('x') }}{{ 'ab'.startswith('a') }}"
    yield "valid-plus", b"{% set a = [1] + messages %}{{ a[1].role + 'x' }}{{ loop_start + 1 if loop_start else 1.5 + 2 }}{{ (a + a) | length }}"
    lazy = b"{% set ns = namespace(y=[1]) %}{% for n in range(64) %}{% set ns.x = ns.x | zip(ns.x) %}{% endfor %}{{ ns.x }}"
    yield "valid-lazy-zip", lazy
    yield "broken-refusal", b"{{ raise_exception('roles') }}"
    yield "broken-syntax", b"{% if %}"
    yield "broken-open", b"{{ 1 *"
    yield "broken-deep", b"{{ " + b"(" * 2000 + b" }}"
    yield "broken-recursion", b"{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"
    yield "broken-loops", b"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    yield "broken-doubling", b"{% set ns = namespace(x='ab') %}{% for n in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    grow = b"{% set ns = namespace(x=[1]) %}{% for n in range(64) %}{% set ns.x = SUM %}{% endfor %}"
    for name, total in {"plus": b"ns.x + ns.x", "sum": b"[ns.x, ns.x] | sum(start=[])", "chain": b"ns.x | chain(ns.x)"}.items():
        yield f"broken-lists-{name}", grow.replace(b"SUM", total)
    for name, value in {"list": b"[ns.x, ns.x]", "map": b"{1: ns.x, 2: ns.x}", "zip": b"ns.x | zip(ns.x)"}.items():
        yield f"broken-shared-{name}", grow.replace(b"SUM", value) + b"{{ ns.x }}"
    yield "broken-cycle", b"{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}"
    yield "broken-cycle-list", b"{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}"
    yield "broken-repeat", b"{{ 'x' * 100000000000 }}"
    yield "broken-list", b"{{ ([1] * 100000000) | tojson }}"
    yield "broken-replace", b"{{ messages[0].content.replace('', 'x' * 100000).replace('x', 'y' * 100000) }}"
    yield "broken-join", b"{{ ('a' * 100000).split('') | join('b' * 100000) }}"
    yield "broken-indent", b"{{ messages | tojson(indent=1000000000) }}"
    yield "broken-format", b"{{ '%1000000000d' | format(1) }}"
    yield "broken-format-character", "{{ '%([1] 0\ufffd0d' | format(1) }}".encode()
    yield "broken-slice", b"{{ [1] | slice(1000000000) | list }}"
    yield "broken-power", b"{{ 10 ** 400000000 }}"
    yield "broken-include", b"{% include '/etc/passwd' %}"


def model_seeds():
    table = keys("MODEL_KEYS")
    sizes = {
        "general.architecture": "gemma3", "*.block_count": 6, "*.context_length": 64, "*.embedding_length": 32,
        "*.feed_forward_length": 64, "*.attention.head_count": 4, "*.attention.head_count_kv": 2,
        "*.attention.key_length": 16, "*.attention.value_length": 16, "*.attention.layer_norm_rms_epsilon": 1e-6,
    }

    def seed(changes=None, factors=0, columns=31):
        pairs = {key: value for key, value in {**sizes, **(changes or {})}.items() if value is not None}
        return bytes([99, columns, factors]) + records(table, pairs)

    yield "valid-gemma3", seed({"*.attention.sliding_window": 8, "*.attention.sliding_window_pattern": 6})
    yield "valid-gemma3-flags", seed({"*.attention.sliding_window": 8, "*.attention.sliding_window_pattern": [True] * 5 + [False]})
    yield "valid-llama", seed({"general.architecture": "llama", "*.rope.dimension_count": 16})
    yield "valid-llama-factors", seed({"general.architecture": "llama", "*.rope.dimension_count": 16}, 1, 7)
    yield "valid-qwen2", seed({"general.architecture": "qwen2"})
    yield "valid-yarn", seed({
        "general.architecture": "qwen2", "*.rope.scaling.type": "yarn", "*.rope.scaling.factor": 4.0,
        "*.rope.scaling.original_context_length": 16,
    })
    for name, changes in {
        "architecture": {"general.architecture": "mamba9"}, "architecture-type": {"general.architecture": 3},
        "no-architecture": {"general.architecture": None}, "no-blocks": {"*.block_count": None},
        "blocks-0": {"*.block_count": 0}, "blocks-many": {"*.block_count": 2**32 - 1}, "blocks-huge": {"*.block_count": 2**63},
        "heads-0": {"*.attention.head_count": 0}, "heads-3": {"*.attention.head_count_kv": 3},
        "kv-0": {"*.attention.head_count_kv": 0}, "key-huge": {"*.attention.key_length": 2**64 - 1},
        "value-other": {"*.attention.value_length": 8}, "rotary-odd": {"*.rope.dimension_count": 7},
        "rotary-wide": {"*.rope.dimension_count": 64}, "epsilon-nan": {"*.attention.layer_norm_rms_epsilon": float("nan")},
        "epsilon-text": {"*.attention.layer_norm_rms_epsilon": "small"},
        "pattern-0": {"*.attention.sliding_window": 8, "*.attention.sliding_window_pattern": 0},
        "flags": {"*.attention.sliding_window": 8, "*.attention.sliding_window_pattern": [True]},
        "context-0": {"*.context_length": 0}, "base": {"*.rope.freq_base": -1.0},
        "scaling": {"*.rope.scaling.type": "magic", "*.rope.scaling.factor": 2.0},
        "factor": {"*.rope.scaling.factor": float("inf")},
    }.items():
        yield f"broken-{name}", seed(changes)
    yield "broken-factors", seed({}, 1, 3)
    yield "broken-nothing", b""


TARGETS = {
    "tokenizer_gguf": tokenizer_seeds, "tokenizer_json": tokenizer_json_seeds, "chat_template": template_seeds, "model_config": model_seeds, "gguf": gguf_seeds, "gguf_split": split_seeds, "safetensors": safetensors_seeds, "safetensors_shards": shard_seeds,
    "safetensors_index": index_seeds, "mlx_config": config_seeds,
}

if __name__ == "__main__":
    for target, seeds in TARGETS.items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in list(folder.glob("valid-*")) + list(folder.glob("broken-*")):
            old.unlink()
        for name, data in seeds():
            path = folder / name
            assert not path.exists(), f"{target}: {name} comes twice"
            path.write_bytes(data)
        print(f"{target}: {len(list(folder.iterdir()))} files, {sum(f.stat().st_size for f in folder.iterdir())} bytes")
