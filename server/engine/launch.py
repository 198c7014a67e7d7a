"""The command line and environment of a vLLM that this server can use.

vLLM is never imported here: its distribution's name says whether it is the CPU or the GPU build.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from server.config import Settings
from server.engine.client import BASE_NAME
from server.errors import ConfigurationError
from server.observability.traces import traces_url

ENTRY_MODULES = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.entrypoints.openai.api_server",  # before 0.32; prints a deprecation since
)
SMALL_WEIGHTS_BYTES = 100 * 10**6
KEEPALIVE_S = 120  # the server's side; clients let go earlier (client.KEEPALIVE_EXPIRY_S)
POLITE_SCHEDULER = "adapters.vllm_plugin.polite.PoliteScheduler"
POLITE_VERSION = "0.32."  # a scheduler's inside is vLLM's own affair: others stay as shipped
BLOCK_SIZE = 32  # prefix-cache hits are whole blocks; the CPU's default of 128 shares nothing


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """What to execute. `env` is to be laid over the process's own environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def engine_command(
    settings: Settings, *, port: int, host: str = "127.0.0.1", number: int = 1
) -> EngineCommand:
    """How to start vLLM for these settings. `engine_args` comes last, so it wins. `number` counts
    the engines on this machine from 1; on GPUs each has a device of its own.

    Raises:
        ConfigurationError: vLLM is not installed, or `engine_args` cannot be parsed.
    """
    vllm, is_cpu = _installed_vllm()
    module = next(m for m in ENTRY_MODULES if _has_module(vllm, m) or m == ENTRY_MODULES[-1])
    flags = _flags(settings, port=port, host=host, is_cpu=is_cpu)
    if is_cpu and vllm.version.startswith(POLITE_VERSION):
        flags = ["--scheduler-cls", POLITE_SCHEDULER, *flags]
    argv = [sys.executable, "-m", module, *flags]
    env = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEPALIVE_S),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_COLOR": "1",
    }
    if settings.otlp_endpoint is not None:
        env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"  # as this server sends them
    if Path(settings.model).is_dir():
        env["HF_HUB_OFFLINE"] = "1"
    if is_cpu:
        env |= {
            "VLLM_CPU_KVCACHE_SPACE": str(settings.engine_kv_cache_gib),
            # "auto" keeps a core for the scheduler: half of a two-core machine would idle.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(settings.engine_threads),
        }
    elif settings.engine_count > 1:
        env["CUDA_VISIBLE_DEVICES"] = _device(number)
    return EngineCommand(tuple(argv), env)


def _device(number: int) -> str:
    """The n-th of the devices that this process may use."""
    visible = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
    if visible and number > len(visible):
        raise ConfigurationError(
            f"TTRL_ENGINE_COUNT is more than the {len(visible)} devices of CUDA_VISIBLE_DEVICES."
        )
    return visible[number - 1].strip() if visible else str(number - 1)


def base_dtype(settings: Settings) -> str:
    """The dtype that the engine serves the base model in; the trainer must compute in the same.

    "auto" where that is left to vLLM: on a GPU, or where it is not installed here.
    """
    try:
        _, is_cpu = _installed_vllm()
    except ConfigurationError:
        return settings.model_dtype
    return _dtype(settings, is_cpu=is_cpu)


def _flags(settings: Settings, *, port: int, host: str, is_cpu: bool) -> list[str]:
    options = {
        "--model": _model_argument(settings.model),
        "--served-model-name": BASE_NAME,
        "--host": host,
        "--port": str(port),
        "--dtype": _dtype(settings, is_cpu=is_cpu),
        "--max-loras": str(settings.engine_max_loras),
        "--max-cpu-loras": str(max(settings.engine_max_cpu_loras, settings.engine_max_loras)),
        "--max-lora-rank": str(settings.lora_rank),
        "--block-size": str(BLOCK_SIZE),
        "--max-num-seqs": str(settings.engine_max_seqs),
        # Sampling is what the request says, and log-probabilities are those of that sampling.
        "--generation-config": "vllm",
        "--logprobs-mode": "processed_logprobs",
        "--scheduling-policy": "priority",
        "--tool-call-parser": "hermes",
    }
    if settings.otlp_endpoint is not None:
        options["--otlp-traces-endpoint"] = traces_url(settings.otlp_endpoint)
    if settings.max_model_len is not None:
        options["--max-model-len"] = str(settings.max_model_len)
    switches = ["--enable-lora", "--enable-auto-tool-choice", "--disable-uvicorn-access-log"]
    flat = [part for option in options.items() for part in option]
    try:
        return [*flat, *switches, *shlex.split(settings.engine_args)]
    except ValueError as error:
        raise ConfigurationError(f"TTRL_ENGINE_ARGS cannot be parsed: {error}") from error


def _installed_vllm() -> tuple[Distribution, bool]:
    """vLLM's distribution, and whether it is the CPU build."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return distribution(name), name == "vllm-cpu"
        except PackageNotFoundError:
            continue
    raise ConfigurationError("vLLM is not installed: name running engines in TTRL_ENGINE_URLS.")


def _has_module(installed: Distribution, module: str) -> bool:
    # importlib.util.find_spec would import vllm, and torch with it.
    return Path(str(installed.locate_file(module.replace(".", "/") + ".py"))).is_file()


def _model_argument(model: str) -> str:
    path = Path(model)
    return str(path.resolve()) if path.is_dir() else model


def _dtype(settings: Settings, *, is_cpu: bool) -> str:
    """vLLM's own choice on a GPU. On a CPU float32 for tiny models, where it costs little and keeps
    the engine's and the trainer's log-probabilities together; bfloat16 for the others.
    """
    if settings.model_dtype != "auto" or not is_cpu:
        return settings.model_dtype
    weights = Path(settings.model).glob("*.safetensors")
    num_bytes = sum(path.stat().st_size for path in weights)
    return "float32" if 0 < num_bytes < SMALL_WEIGHTS_BYTES else "bfloat16"
