"""A copy of an adapter with noise in its weights: a file that went bad and still loads."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from random import Random

from adapters.manifest import WEIGHTS_NAME


def with_noise(source: Path, target: Path, noise: float, *, seed: int = 0) -> None:
    """Copy an adapter; each weight gets Gaussian noise of `noise` times its tensor's deviation."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    path = target / WEIGHTS_NAME
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    dice = Random(seed)
    for name, tensor in header.items():
        if name == "__metadata__" or tensor["dtype"] != "F32":
            continue
        start, end = (8 + size + offset for offset in tensor["data_offsets"])
        form = f"<{(end - start) // 4}f"
        values = struct.unpack(form, content[start:end])
        spread = (sum(value * value for value in values) / len(values)) ** 0.5
        spoiled = (value + dice.gauss(0.0, noise * spread) for value in values)
        content[start:end] = struct.pack(form, *spoiled)
    path.write_bytes(content)
