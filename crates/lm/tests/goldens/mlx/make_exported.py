#!/usr/bin/env python3
"""Goldens of folders that `anymlx quantize` has made: what MLX computes for them.

    cargo build --release -p anymlx-cli
    python make_exported.py --anymlx ../../../../../target/release/anymlx

Packages as for make.py.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from make import record

HERE = Path(__file__).parent


@dataclass
class Exported:
    name: str
    model: str
    type: str
    seed: int
    description: str = "exported by `anymlx quantize`, read by mlx-lm"
    config: dict = field(default_factory=dict)


CASES = [
    Exported("exported-gemma3", "gemma3", "mlx-4bit-g32", 21),
    Exported("exported-llama", "llama", "mlx-8bit-g64", 22),
    Exported("exported-qwen2", "qwen2", "mlx-6bit-g32", 23),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--anymlx", type=Path, required=True)
    program = parser.parse_args().anymlx.resolve()
    for case in CASES:
        source = HERE / "../models" / f"{case.model}.gguf"
        target = HERE / case.name
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / case.name
            subprocess.run([program, "quantize", source, made, "--type", case.type], check=True)
            case.config = json.loads((made / "config.json").read_text())
            description, logits = record(case, made)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(made, target, ignore=shutil.ignore_patterns("*.partial*", "*.from"))
        (HERE / f"{case.name}.json").write_text(json.dumps(description, indent=1) + "\n")
        (HERE / f"{case.name}.logits").write_bytes(logits.tobytes())
        print(case.name, {key: description[key] for key in ("logits_deviation", "logits_noise", "continuation_margin")})


if __name__ == "__main__":
    main()
