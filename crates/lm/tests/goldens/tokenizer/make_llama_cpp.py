"""Writes the ids that llama.cpp gives for TEXTS with one model file.

    python make_llama_cpp.py path/to/llama-tokenize path/to/model.gguf out.json

`llama-tokenize` of llama.cpp as bundled with PyPI llama-cpp-python 0.3.36 made the committed files.
Of the long text, all TEXTS thirty times, only the number of ids and their FNV-1a hash (32-bit
little-endian ids) are kept.
"""

import ast
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile

from texts import TEXTS


def ids(tool, model, data, parse_special):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = [tool, "-m", model, "-f", file.name, "--ids", "--no-escape"]
        if not parse_special:
            command.append("--no-parse-special")
        if not data:
            command[3:5] = ["-p", ""]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        # Without text the tool prints no list.
        return None
    return ast.literal_eval(done.stdout.decode().strip().splitlines()[-1])


def fnv(values):
    state = 0xCBF29CE484222325
    for byte in b"".join(value.to_bytes(4, "little") for value in values):
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return f"{state:016x}"


def main():
    tool, model, out = sys.argv[1:]
    jobs = [(text, special) for text in TEXTS for special in (False, True)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: ids(tool, model, job[0].encode(), job[1]), jobs))
    cases = [
        {"text": text, "parse_special": special, "ids": result}
        for (text, special), result in zip(jobs, results)
        if result is not None
    ]
    result = ids(tool, model, ("\n".join(TEXTS) * 30).encode(), False)
    long_text = {"count": len(result), "fnv1a": fnv(result)}
    golden = {
        "peer": "llama.cpp's llama-tokenize, as bundled with PyPI llama-cpp-python 0.3.36",
        "model": pathlib.Path(model).name,
        "long_text": long_text,
        "cases": cases,
    }
    lines = json.dumps(golden, ensure_ascii=True).replace('{"text"', '\n{"text"')
    pathlib.Path(out).write_text(lines + "\n")


main()
