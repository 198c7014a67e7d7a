"""Versions whose files are not what was published: refused with a clear error, the engine and all
others untouched.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ttrl_client import ConflictError

from adapters.manifest import CONFIG_NAME, MANIFEST_NAME, WEIGHTS_NAME
from server.tenants import VersionRef
from tests.e2e.live import START_TIMEOUT_S, LiveServer
from tests.e2e.markers import GREEDY, QUESTION, Marker, markers, publish
from tests.e2e.traffic import Reply, User

pytestmark = pytest.mark.engine

VICTIM, BYSTANDER = "damaged", "bystander"


@dataclass(frozen=True, slots=True)
class Stage:
    """Two tenants, version 1 of each live, and files to publish more versions from."""

    live: LiveServer
    keys: dict[str, str]
    sources: dict[str, Marker]
    numbers: Iterator[int]  # of the victim's next versions

    def publish(self) -> VersionRef:
        """A further version of the victim, whole so far."""
        return publish(self.live, VICTIM, next(self.numbers), self.sources[VICTIM].source)

    def ask(self, tenant: str, **params: Any) -> Reply:
        """Ask the question once."""
        user = User(self.live.base_url, self.keys[tenant])
        try:
            return user.ask(QUESTION, **GREEDY, **params)
        finally:
            user.close()

    def check_served(self, tenant: str) -> None:
        """The tenant's version 1 answers, as itself."""
        reply = self.ask(tenant)
        assert (reply.status, reply.adapter) == (200, f"{tenant}--v1"), reply
        assert reply.text == self.sources[tenant].text


@pytest.fixture(scope="module")
def stage(live: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    live.wait_ready()
    marks = markers(live, tmp_path_factory.mktemp("markers"), seed=500)
    keys = {name: live.make_tenant(name)[1] for name in (VICTIM, BYSTANDER)}
    sources = {name: next(marks) for name in keys}
    for name, marker in sources.items():
        publish(live, name, 1, marker.source)
        live.admin.promote(name, 1)
    yield Stage(live, keys, sources, count(2))
    for name in keys:
        if live.admin.read_tenant(name).live_version:
            live.admin.rollback(name, 0)


def gone(directory: Path) -> str:
    shutil.rmtree(directory)
    return "no such directory"


def without_weights(directory: Path) -> str:
    (directory / WEIGHTS_NAME).unlink()
    return f"{WEIGHTS_NAME}: missing"


def without_manifest(directory: Path) -> str:
    (directory / MANIFEST_NAME).unlink()
    return f"{MANIFEST_NAME}: missing"


def torn(directory: Path) -> str:
    weights = directory / WEIGHTS_NAME
    os.truncate(weights, weights.stat().st_size // 2)
    return "bytes, not"


def not_a_number(directory: Path) -> str:
    """The engine would load it, and answer with it."""
    weights = directory / WEIGHTS_NAME
    content = bytearray(weights.read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    num_floats = (len(content) - start) // 4
    content[start:] = np.full(num_floats, np.nan, dtype="<f4").tobytes()
    weights.write_bytes(content)
    return "SHA-256 differs"


def another_rank(directory: Path) -> str:
    config = json.loads((directory / CONFIG_NAME).read_text())
    (directory / CONFIG_NAME).write_text(json.dumps(config | {"r": 512}))
    return f"{CONFIG_NAME}: "


def a_link(directory: Path) -> str:
    weights = directory / WEIGHTS_NAME
    weights.rename(directory.parent / f"{directory.name}-elsewhere")
    weights.symlink_to(directory.parent / f"{directory.name}-elsewhere")
    return "a symbolic link"


DAMAGE: list[Callable[[Path], str]] = [
    gone,
    without_weights,
    without_manifest,
    torn,
    not_a_number,
    another_rank,
    a_link,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_version_is_not_promoted(stage: Stage, damage: Callable[[Path], str]) -> None:
    version = stage.publish()
    reason = damage(Path(version.path))
    vllm = stage.live.process("vllm")
    swaps = stage.live.admin.list_swaps(VICTIM).items

    with pytest.raises(ConflictError) as refused:
        stage.live.admin.promote(VICTIM, version.number)

    assert refused.value.code == "adapter_damaged"
    assert f"{VICTIM}--v{version.number}" in str(refused.value)
    assert reason in str(refused.value)
    assert str(stage.live.data_dir) not in str(refused.value)
    assert stage.live.admin.read_tenant(VICTIM).live_version == 1
    assert stage.live.admin.list_swaps(VICTIM).items == swaps
    assert version.engine_name not in stage.live.adapters()
    assert vllm.is_alive
    stage.check_served(VICTIM)
    stage.check_served(BYSTANDER)


def test_a_damaged_version_cannot_be_asked_for(stage: Stage) -> None:
    version = stage.publish()
    not_a_number(Path(version.path))
    for stream in (False, True):
        reply = stage.ask(VICTIM, model=f"ttrl@v{version.number}", stream=stream)
        assert (reply.status, reply.adapter) == (503, None)
        assert reply.retry_after
        assert reply.error is not None
        assert reply.error["code"] == "engine_unavailable"
        assert str(stage.live.data_dir) not in reply.error["message"]
    stage.check_served(VICTIM)


def test_a_live_version_whose_files_are_gone_fails_alone_after_a_restart(stage: Stage) -> None:
    """It answers from the engine's memory until then; a rollback mends it."""
    version = stage.publish()
    stage.live.admin.promote(VICTIM, version.number)
    gone(Path(version.path))
    reply = stage.ask(VICTIM)
    assert (reply.status, reply.adapter) == (200, f"{VICTIM}--v{version.number}")

    stage.live.kill("vllm")
    stage.live.wait_for(
        lambda: stage.ask(BYSTANDER).is_whole, "the engine to be back", START_TIMEOUT_S
    )

    stage.check_served(BYSTANDER)
    reply = stage.ask(VICTIM)
    assert (reply.status, bool(reply.retry_after)) == (503, True)
    stage.live.admin.rollback(VICTIM, 1)
    stage.check_served(VICTIM)
