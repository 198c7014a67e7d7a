"""Adapters that mark their answers: each has a greedy answer of its own to one question.

Nothing is trained. The identity adapter's B is filled with noise until the answer differs from all
others, every token of it a clear winner, so that neither batching nor rounding can change it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from safetensors.numpy import load_file, save_file

from adapters.manifest import CONFIG_NAME, WEIGHTS_NAME
from adapters.store import AdapterStore
from server.db import versions
from server.db.engine import Database
from server.engine.identity import identity_dir, model_digest
from server.tenants import VersionRef, version_engine_name
from tests.e2e.live import CHAT, LiveServer, question_body

QUESTION = "What is 1234+4321?"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 16}
NOISE = 0.17  # of B: the answers go wrong, but stay answers
MIN_MARGIN = 0.1  # nats between the winner and the second; the engine repeats itself to 1e-4
MAX_TRIES = 100


@dataclass(frozen=True, slots=True)
class Marker:
    """An adapter's files, in PEFT's format, and what it answers."""

    source: Path
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer straight from the engine."""

    text: str
    margin: float  # nats, the least over the tokens

    @property
    def is_clear(self) -> bool:
        """Whether it can be told from others, and cannot flip."""
        return self.margin >= MIN_MARGIN and len(self.text) >= 4 and self.text.isascii()


def markers(live: LiveServer, folder: Path, *, seed: int) -> Iterator[Marker]:
    """Markers without end; their answers differ from one another and from the base model's."""
    taken = {answer(live, "identity").text}
    for at in islice(count(), MAX_TRIES):
        source = noisy(live, folder / f"marker-{seed}-{at}", seed=seed + at)
        name = f"t0-marker--c0-s{seed + at}"  # as of a training step: the server leaves it alone
        control(live, "load", lora_name=name, lora_path=str(source))
        found = answer(live, name)
        control(live, "unload", lora_name=name)
        if found.is_clear and found.text not in taken:
            taken.add(found.text)
            yield Marker(source, found.text)
    raise AssertionError(f"{len(taken)} clear answers in {MAX_TRIES} tries")


def noisy(live: LiveServer, folder: Path, *, seed: int) -> Path:
    """The identity adapter with noise in its B."""
    identity = identity_dir(live.settings)
    numbers = np.random.default_rng(seed)
    tensors = load_file(identity / WEIGHTS_NAME)
    for name in sorted(tensors):
        if "lora_B" in name:
            noise = NOISE * numbers.standard_normal(tensors[name].shape)
            tensors[name] = noise.astype(np.float32)
    folder.mkdir(parents=True)
    shutil.copy(identity / CONFIG_NAME, folder)
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    (folder / WEIGHTS_NAME).chmod(0o644)
    return folder


def publish(live: LiveServer, tenant: str, number: int, source: Path) -> VersionRef:
    """Publish an adapter as a cycle does: the directory, then the row. It is not live by that."""
    tenant_id = live.admin.read_tenant(tenant).id
    store = AdapterStore(live.settings.adapters_dir)
    manifest = store.publish(
        source,
        tenant_id=tenant_id,
        number=number,
        engine_name=version_engine_name(tenant_id, tenant, number),
        parent=number - 1,
        cycle_id=None,
        base_digest=model_digest(live.settings.model),
        rank=live.settings.lora_rank,
        alpha=live.settings.lora_alpha,
        created_at=datetime.now(UTC),
    )
    path = str(store.version_dir(tenant_id, number))
    ref = VersionRef(number, manifest.engine_name, path, f"{tenant}--v{number}")
    asyncio.run(_add_row(live, tenant_id, ref, manifest.digest))
    return ref


async def _add_row(live: LiveServer, tenant_id: int, ref: VersionRef, digest: str) -> None:
    database = Database(live.settings.sqlalchemy_url)
    try:
        async with database.transaction() as session:
            await versions.publish_version(
                session,
                tenant_id=tenant_id,
                number=ref.number,
                engine_name=ref.engine_name,
                path=ref.path,
                manifest_digest=digest,
                parent=ref.number - 1,
                cycle_id=None,
                report={},
                now=datetime.now(UTC),
            )
    finally:
        await database.close()


def answer(live: LiveServer, engine_name: str) -> Answer:
    """The greedy answer of an adapter that the engine has loaded."""
    extras = {"model": engine_name, "logprobs": True, "top_logprobs": 2}
    body = question_body(QUESTION, **GREEDY, **extras)
    choice = _post(live, CHAT, body).json()["choices"][0]
    tops = [token["top_logprobs"] for token in choice["logprobs"]["content"]]
    margin = min(best["logprob"] - second["logprob"] for best, second in tops)
    return Answer(choice["message"]["content"], margin)


def control(live: LiveServer, verb: str, **body: str) -> None:
    """Load or unload an adapter in the engine, past the server."""
    _post(live, f"/v1/{verb}_lora_adapter", body)


def _post(live: LiveServer, path: str, body: dict[str, Any]) -> httpx.Response:
    url = live.engine_url + path
    return httpx.post(url, json=body, timeout=120, trust_env=False).raise_for_status()
