"""One digest for a base model: adapters belong to weights, not to a path or a name.

A manifest says in front of it how it was made: `files:<digest>` of a directory's files, or
`hub:<digest>` of a hub id's name. Older manifests do not say.
"""

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


def is_same_base(one: str, other: str) -> bool | None:
    """Whether two manifests' digests are of one base model. None: that cannot be told, since they
    were made in two ways, or one does not say how; a model may have both a path and a hub id.
    """
    (way, digest), (other_way, other_digest) = (_parts(marked) for marked in (one, other))
    if digest == other_digest:
        return True
    return False if way and way == other_way else None


def _parts(marked: str) -> tuple[str, str]:
    way, _, digest = marked.rpartition(":")
    return way, digest
