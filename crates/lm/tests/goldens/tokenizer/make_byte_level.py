"""Trains a small byte-level vocabulary and writes the ids that Hugging Face `tokenizers` gives for TEXTS.

    python make_byte_level.py out.json

The patterns are those of the `tokenizer.json` files of GPT-2, Llama 3, Qwen 2, DeepSeek-V3 and
StarCoder (SmolLM). The ids are those of the text alone, with no special tokens.
"""

import json
import pathlib
import sys

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from texts import TEXTS

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


RULES = {
    "gpt-2": [byte_level(True)],
    "llama-bpe": [split(LLAMA3), byte_level(False)],
    "qwen2": [split(QWEN2), byte_level(False)],
    "deepseek-v3": [split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK_V3), byte_level(False)],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), byte_level(True)],
}


def main():
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.Sequence(RULES["llama-bpe"])
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    base.train_from_iterator(TEXTS, trainer)
    model = json.loads(base.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]

    golden = {"peer": f"Hugging Face tokenizers {tokenizers.__version__}", "tokens": tokens, "merges": merges, "rules": {}}
    for name, stages in RULES.items():
        pairs = [tuple(merge.split(" ")) for merge in merges]
        tokenizer = Tokenizer(models.BPE(model["vocab"], pairs, ignore_merges=name == "llama-bpe"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(stages)
        tokenizer.decoder = decoders.ByteLevel()
        encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
        assert [tokenizer.decode(ids) for ids in encoded] == TEXTS
        golden["rules"][name] = encoded
    golden["texts"] = TEXTS
    pathlib.Path(sys.argv[1]).write_text(json.dumps(golden, separators=(",", ":")).replace("],[", "],\n[") + "\n")


main()
