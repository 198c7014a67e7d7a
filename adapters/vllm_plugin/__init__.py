"""A vLLM plugin that mends and speeds up LoRA on CPU (`vllm.general_plugins`: `ttrl_cpu_lora`).

vLLM 0.32's torch operations gather a copy of A and B for every token, and give rows without an
adapter, in a batch where others have one, the weights of the last slot. `grouped` does it with one
pair of matrix products per adapter, and leaves those rows alone. `seeds` mends another fault of
the CPU backend, of which the engine dies; `naps` leaves the cores to those that work, `one_call`
spares each step a message and a wait, and `spelling` spares the web process a fifth of its time
while a cycle samples, on GPUs too.

vLLM loads this module into each of its processes, but only the worker has LoRA layers and samples:
no test runs before a worker asks for the class of the LoRA layers. All of them wait for others.
"""

from __future__ import annotations

import logging
from importlib import import_module

KNOWN_VERSION = "0.32."
WRAPPER = "adapters.vllm_plugin.grouped.GroupedPunicaWrapper"

logger = logging.getLogger("vllm.ttrl_cpu_lora")  # vLLM shows the loggers under its own name


def register() -> None:
    """Make vLLM on CPU use `GroupedPunicaWrapper`, unless its version is not known here or the
    self-test fails; then vLLM stays as shipped. May be called any number of times.
    """
    from vllm import __version__
    from vllm.platforms import current_platform

    is_known = __version__.startswith(KNOWN_VERSION)
    if is_known:
        _mend("spelling.remember_spellings", otherwise="tokens are spelt again and again")
    platform = type(current_platform)
    if not current_platform.is_cpu() or _is_registered(platform):
        return
    if not is_known:
        logger.warning("LoRA on CPU stays as shipped: vLLM %s is not known", __version__)
        return
    _mend("naps.nap_while_waiting", otherwise="waiting processes keep their cores")
    shipped: str = platform.get_punica_wrapper()

    def tested_wrapper(_: type[object]) -> str:
        _mend(
            "seeds.mend_seeded_prefill",
            otherwise="seeded requests with long prompts stay dangerous",
        )
        _mend("one_call.merge_calls", otherwise="the worker is called twice in each step")
        if problem := _self_test():
            logger.error("LoRA on CPU stays as shipped: the self-test failed: %s", problem)
            return shipped
        logger.info("LoRA on CPU: one pair of matrix products per adapter")
        return WRAPPER

    # The hook through which a platform names the class; the shipped class stays untouched.
    platform.get_punica_wrapper = classmethod(tested_wrapper)


def _is_registered(platform: type[object]) -> bool:
    hook = vars(platform).get("get_punica_wrapper")
    return getattr(hook, "__module__", None) == __name__


def _mend(what: str, *, otherwise: str) -> None:
    """Call `module.function` of this package, or say what it is like without it."""
    module, function = what.split(".")
    try:
        getattr(import_module(f"{__name__}.{module}"), function)()
    except Exception as error:  # a plugin must not take vLLM down
        logger.error("%s: %s", otherwise, error)


def _self_test() -> str | None:
    """What is wrong, or None. Anything unexpected about this vLLM counts as a failure."""
    try:
        from adapters.vllm_plugin.self_test import self_test

        return self_test()
    except Exception as error:  # a plugin must not take vLLM down
        return f"{type(error).__name__}: {error}"
