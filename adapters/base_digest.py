"""One digest for a base model: adapters belong to weights, not to a path or a name."""

from __future__ import annotations

import hashlib
from pathlib import Path


def base_digest(model_dir: Path) -> str:
    """SHA-256 (hex) over `config.json`, `tokenizer.json` (if there is one) and the weight files.

    Names and contents count, in the order of names. Raises FileNotFoundError without a config or
    without weights.
    """
    weights = sorted(model_dir.glob("*.safetensors")) or sorted(model_dir.glob("*.bin"))
    if not weights:
        raise FileNotFoundError(f"no weight files in {model_dir}")
    tokenizer = model_dir / "tokenizer.json"
    files = [model_dir / "config.json", *([tokenizer] if tokenizer.exists() else []), *weights]
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            whole.update(path.name.encode() + b"\0")
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
