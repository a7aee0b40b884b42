#!/usr/bin/env python3
"""Writes the grids of the IQ1, IQ2 and IQ3 layouts beside this file.

    pip install gguf==0.19.0
    python make.py

TYPE.grid is the compact form in which PyPI `gguf` (`gguf/quants.py`, attribute `grid_hex`) keeps the table of the same name
in ggml (`ggml/src/ggml-common.h`): one code per element, least significant bits first; 2 bits per code for IQ1 and IQ2,
4 bits for IQ3. `../mod.rs` says what a code stands for. IQ1_M uses the grid of IQ1_S.
"""

from pathlib import Path

import gguf.quants as quants

for name in ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]:
    packed = bytes.fromhex(getattr(quants, name).grid_hex.decode())
    (Path(__file__).parent / f"{name.lower()}.grid").write_bytes(packed)
