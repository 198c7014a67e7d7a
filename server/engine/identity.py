"""Version 0: an adapter that changes nothing, made once for a base model and rank.

All traffic runs on adapters, the unadapted too, because mixed batches of bare-model and adapter
tokens are wrong on vLLM's CPU backend.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from adapters.base_digest import base_digest
from server.config import Settings, environment_of_children
from server.engine.guard import guarded
from server.errors import ConfigurationError, ModelFilesError

logger = logging.getLogger(__name__)

TIMEOUT_S = 300.0
LOCK_POLL_S = 0.1
TAIL_CHARS = 2000
FILES = ("adapter_config.json", "adapter_model.safetensors")


def model_digest(model: str) -> str:
    """What a base model is known by, as manifests have it: `files:` and the digest of its files, or
    `hub:` and that of its name on the hub.

    Raises:
        ModelFilesError: the model's files are missing.
    """
    path = Path(model)
    if not path.is_dir():
        return f"hub:{hashlib.sha256(f'hub:{model}'.encode()).hexdigest()}"
    try:
        return f"files:{base_digest(path)}"
    except FileNotFoundError as error:
        raise ModelFilesError(str(error)) from error


def identity_dir(settings: Settings, digest: str | None = None) -> Path:
    """Where the identity adapter of these settings lives, whether it is there or not.

    Args:
        settings: of this server.
        digest: the base model's; None: all its files are read for it.

    Raises:
        ModelFilesError: the model's files are missing.
    """
    digest = (digest or model_digest(settings.model)).rpartition(":")[2]
    return settings.adapters_dir / "base" / f"{digest[:12]}-r{settings.lora_rank}"


async def ensure_identity(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> Path:
    """The identity adapter's directory; the adapter is made when it is not there yet.

    Processes that ask at the same time wait for the one that makes it.

    Raises:
        ModelFilesError: the model's files are missing.
        ConfigurationError: it could not be made in time, with the end of the error output.
    """
    target = await asyncio.to_thread(identity_dir, settings)
    if _is_there(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        async with asyncio.timeout(timeout_s), _locked(target.with_suffix(".lock")):
            if not _is_there(target):
                await _make(settings, target)
    except TimeoutError as error:
        message = f"The identity adapter was not made within {timeout_s:.0f} s."
        raise ConfigurationError(message) from error
    if not _is_there(target):
        raise ConfigurationError(f"The trainer left no identity adapter in {target}.")
    return target


def _is_there(target: Path) -> bool:
    return all((target / name).is_file() for name in FILES)


@asynccontextmanager
async def _locked(path: Path) -> AsyncGenerator[None]:
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_S)
        yield


async def _make(settings: Settings, target: Path) -> None:
    options = {
        "--model": settings.model,
        "--rank": str(settings.lora_rank),
        "--alpha": str(settings.lora_alpha),
        "--out": str(target),
    }
    flat = [part for option in options.items() for part in option]
    process = await asyncio.create_subprocess_exec(
        *guarded([sys.executable, "-m", "adapters.training", "identity", *flat], grace_s=1),
        stdin=asyncio.subprocess.PIPE,  # never written: its end stops the command
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=environment_of_children(),
    )
    assert process.stderr is not None
    try:
        errors = await process.stderr.read()
        status = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()  # the guard, which ends the command
            await process.wait()
    if status != 0:
        tail = errors.decode(errors="replace").strip()[-TAIL_CHARS:]
        raise ConfigurationError(f"The identity adapter could not be made:\n{tail}")
    logger.info("identity adapter made", extra={"path": str(target)})
