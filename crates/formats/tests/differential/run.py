#!/usr/bin/env python3
"""Compares which GGUF files are accepted here, by PyPI `gguf` and by ggml's own reader.

    pip install gguf==0.19.0 numpy==2.4.6
    cargo build --release -p anymlx-formats --example judge_gguf
    python run.py --judge ../../../../target/release/examples/judge_gguf [--ggml libggml-base.so] [--files 4000]

Files are the seeds of `fuzz/corpus/gguf` and random changes of the valid ones, the same in every run. Writes `summary.txt`; README.md
explains every class of difference in it.
"""

import argparse
import collections
import ctypes
import multiprocessing
import random
import re
import resource
import signal
import struct
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SEEDS = HERE / "../../../../fuzz/corpus/gguf"
NUMBERS = [0, 1, 2, 9, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1]
SECONDS_PER_FILE = 2
BYTES_OF_MEMORY = 2 << 30

# What ggml has said about the file at hand.
LOG = []


def mutate(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if not data:
            break
        at = rng.randrange(len(data))
        what = rng.randrange(8)
        if what < 2:
            data[at] = rng.randrange(256)
        elif what == 2:
            data[at] ^= 1 << rng.randrange(8)
        elif what < 5:
            width = rng.choice([4, 8])
            data[at:at + width] = struct.pack("<Q", rng.choice(NUMBERS))[:min(width, len(data) - at)]
        elif what == 5:
            del data[at:at + rng.randrange(1, 24)]
        elif what == 6:
            piece = data[at:at + rng.randrange(1, 40)]
            to = rng.randrange(len(data))
            data[to:to] = piece
        else:
            del data[at:]
    return bytes(data)


def make_files(folder, count):
    seeds = sorted(path for path in SEEDS.iterdir() if path.name.startswith(("valid-", "broken-")))
    valid = [path.read_bytes() for path in seeds if path.name.startswith("valid-")]
    files = [(path.name, path.read_bytes()) for path in seeds]
    rng = random.Random(2024)
    files += [(f"mutation-{index}", mutate(rng.choice(valid), rng)) for index in range(count - len(files))]
    paths = []
    for index, (name, data) in enumerate(files):
        path = folder / f"{index:06}-{name}"
        path.write_bytes(data)
        paths.append(str(path))
    return paths


def python_verdict(path):
    import gguf

    try:
        gguf.GGUFReader(path)
        return "accepted"
    except TimeoutError:
        return "takes longer than the limit"
    except MemoryError:
        return "takes more memory than the limit"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


class InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p)]


def ggml_verdict(path):
    GGML.gguf_init_from_file.restype = ctypes.c_void_p
    GGML.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    GGML.gguf_free.argtypes = [ctypes.c_void_p]
    LOG.clear()
    found = GGML.gguf_init_from_file(path.encode(), InitParams(True, None))
    if found:
        GGML.gguf_free(found)
    if found:
        return "accepted"
    message = LOG[0].decode(errors="replace").strip() if LOG else "nothing said"
    message = re.sub(r"'.*?'", "'..'", message, flags=re.S)
    return "refuses: " + re.sub(r"-?\d+", "N", message)


def worker(which, library, paths, results):
    """Judges files until one stops the process."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES_OF_MEMORY, BYTES_OF_MEMORY))
    if which == "ggml":
        global GGML
        GGML = ctypes.CDLL(library)
        collect = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        keep = collect(lambda _, message, __: LOG.append(message))
        GGML.ggml_log_set(keep, None)
    judge = python_verdict if which == "python" else ggml_verdict

    def too_long(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_long)
    for path in paths:
        verdict = "takes longer than the limit"
        try:
            signal.alarm(SECONDS_PER_FILE)
            verdict = judge(path)
            signal.alarm(0)
        except TimeoutError:
            pass
        results.send(verdict)
    results.close()


def verdicts(which, library, paths):
    found = []
    while len(found) < len(paths):
        receive, send = multiprocessing.Pipe(False)
        process = multiprocessing.Process(target=worker, args=(which, library, paths[len(found):], send))
        process.start()
        send.close()
        try:
            while len(found) < len(paths):
                found.append(receive.recv())
        except EOFError:
            found.append("crash")
        process.join()
    return found


def our_class(message):
    """Our message without what is special to one file."""
    message = re.sub(r"^gguf: ", "", message)
    message = re.sub(r"`[^`]*`( has| is|: )", r"`..`\1", message)
    message = re.sub(r"metadata key `.*?`: ", "", message, flags=re.S)
    message = re.sub(r"element \d+: ", "", message)
    for pattern, name in [
        (r"announced before", "count that the file cannot hold"),
        (r"of \d+ bytes at offset", "value past the end of the file"),
        (r"unknown (value|array element) type", "unknown value type"),
        (r"not UTF-8", "text that is not UTF-8"),
        (r"bool at offset", "bool that is neither 0 nor 1"),
        (r"key at offset \d+ has", "empty or overlong key"),
        (r"name at offset \d+ is empty", "empty tensor name"),
        (r"appears twice", "key or name that appears twice"),
        (r"is not supported", "unknown tensor type"),
        (r"dimensions, at most", "more than 4 dimensions"),
        (r"is 0$", "extent of 0"),
        (r"passes 2\^63|pass 2\^64", "shape that overflows"),
        (r"needs a multiple of", "row that is no multiple of the block"),
        (r"multiple of the alignment", "offset that is not aligned"),
        (r"of the data section", "tensor outside of the file"),
        (r"overlap", "tensors that overlap"),
        (r"power of two|needed a u32", "alignment that is no u32 power of two"),
        (r"nested deeper", "arrays nested deeper than 4"),
        (r"^version|big-endian", "version or byte order"),
        (r"begins with", "magic"),
    ]:
        if re.search(pattern, message, flags=re.S):
            return name
    return message


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--judge", required=True)
    arguments.add_argument("--ggml")
    arguments.add_argument("--files", type=int, default=4000)
    options = arguments.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), options.files)
        ours = subprocess.run([options.judge], input="\n".join(paths) + "\n", capture_output=True, text=True, check=True)
        ours = ours.stdout.splitlines()
        assert len(ours) == len(paths), f"{len(ours)} verdicts for {len(paths)} files"
        others = {"PyPI gguf": verdicts("python", None, paths)}
        if options.ggml:
            others["ggml"] = verdicts("ggml", options.ggml, paths)
    accepted = [line.startswith("accepted") for line in ours]
    lines.append(f"{len(paths)} files, {sum(accepted)} accepted here")
    for name, theirs in others.items():
        both = sum(a and b == "accepted" for a, b in zip(accepted, theirs))
        neither = sum(not a and b != "accepted" for a, b in zip(accepted, theirs))
        lines += ["", f"{name}: {both} accepted by both, {neither} refused by both"]
        only_they = collections.Counter(
            our_class(line) for line, a, b in zip(ours, accepted, theirs) if not a and b == "accepted"
        )
        lines.append(f"  accepted by {name} alone, by the reason for which we refuse: {sum(only_they.values())}")
        lines += [f"    {count:5} {reason}" for reason, count in sorted(only_they.items(), key=lambda item: (-item[1], item[0]))]
        only_we = collections.Counter(re.sub(r"\d+", "N", b) for a, b in zip(accepted, theirs) if a and b != "accepted")
        lines.append(f"  accepted by us alone, by what {name} does: {sum(only_we.values())}")
        lines += [f"    {count:5} {reason}" for reason, count in sorted(only_we.items(), key=lambda item: (-item[1], item[0]))]
        limits = collections.Counter(b for b in theirs if b == "crash" or b.startswith("takes"))
        lines += [f"  {name} {verdict}: {count} files" for verdict, count in sorted(limits.items())]
    report = "\n".join(lines) + "\n"
    (HERE / "summary.txt").write_text(report)
    print(report, end="")


if __name__ == "__main__":
    main()
