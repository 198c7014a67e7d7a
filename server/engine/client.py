"""One vLLM server over HTTP: control, and sampling with token ids in and out.

Used by the worker and the control plane. The gateway relays bytes on its own connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import httpx
import msgspec

from server.errors import (
    BadRequest,
    EngineFailed,
    EngineSilent,
    EngineUnavailable,
    UnknownModel,
)

BASE_NAME = "base"
"""What the engine calls the bare model; no name that a tenant can ask for becomes this."""

BACKGROUND_PRIORITY = 10  # of sampling for training; users' requests have 0, lower goes first
CONTROL_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 120.0
# Shorter than the engine's keep-alive (launch.py), so that no request meets a closing connection.
KEEPALIVE_EXPIRY_S = 30.0
MAX_ERROR_CHARS = 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled completion of T tokens, the stop token included."""

    token_ids: list[int]  # (T,)
    logprobs: list[float]  # (T,) nats, of the sampled tokens at the sampling temperature
    text: str
    finish_reason: str | None


class _Model(msgspec.Struct):
    id: str
    root: str | None = None
    parent: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float]


class _Choice(msgspec.Struct):
    index: int
    text: str
    token_ids: list[int]
    logprobs: _Logprobs
    finish_reason: str | None = None


class _Choices(msgspec.Struct):
    choices: list[_Choice]


class _Error(msgspec.Struct):
    message: str
    type: str | None = None
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


class EngineClient:
    """Talks to the engine at `url`.

    Every method but `healthy` raises EngineUnavailable when the engine cannot be reached or is
    starting, EngineSilent, which is one, when it does not answer in time, and EngineFailed when its
    answer makes no sense.
    `transport` replaces the network in tests; `timeout_s` bounds one sampling request.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = 600.0,
        max_connections: int = 128,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        limits = httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=KEEPALIVE_EXPIRY_S,
        )
        # trust_env is off: a proxy from the environment has no business between us and the engine.
        self._http = httpx.AsyncClient(
            base_url=self.url, transport=transport, limits=limits, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Whether the engine answers and is alive; never raises for an engine that is away."""
        try:
            await self.check_health()
        except (EngineUnavailable, EngineFailed, BadRequest):
            return False
        return True

    async def check_health(self) -> None:
        """Return if the engine answers and is alive."""
        _refused(await self._request("GET", "/health", CONTROL_TIMEOUT_S))

    async def adapters(self) -> dict[str, str | None]:
        """Loaded adapters: name to path, the base model excluded."""
        response = await self._request("GET", "/v1/models", CONTROL_TIMEOUT_S)
        models = _decoded(_refused(response), _Models)
        return {model.id: model.root for model in models.data if model.parent is not None}

    async def metrics(self) -> str:
        """What the engine says of itself, in Prometheus's text format."""
        return _refused(await self._request("GET", "/metrics", CONTROL_TIMEOUT_S)).text

    async def load_adapter(self, name: str, path: str) -> float:
        """Load an adapter from an absolute path; milliseconds that it took.

        An adapter that is loaded under this name from this path already is fine.

        Raises:
            EngineFailed: the engine refuses these files, or the name means other files.
        """
        if not path.startswith("/"):  # vLLM would take it for a hub id, and download
            raise EngineFailed(f"The path of adapter {name} is not absolute.")
        started = perf_counter()
        body = {"lora_name": name, "lora_path": path}
        response = await self._request("POST", "/v1/load_lora_adapter", LOAD_TIMEOUT_S, body)
        if response.status_code == 400 and (await self.adapters()).get(name) == path:
            return (perf_counter() - started) * 1e3
        if not response.is_success and response.status_code != 503:
            reason = _error(response).message
            raise EngineFailed(f"The engine refused adapter {name}: {reason}")
        _refused(response)
        return (perf_counter() - started) * 1e3

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter's name; requests in flight finish on it. Idempotent."""
        path = "/v1/unload_lora_adapter"
        response = await self._request("POST", path, LOAD_TIMEOUT_S, {"lora_name": name})
        if response.status_code != 404:
            _refused(response)

    async def prefill(
        self,
        *,
        model: str,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None,
        cache_salt: str,
    ) -> None:
        """Have a chat's prompt computed, so that its beginning is in the prefix cache.

        Raises:
            UnknownModel: the adapter is not loaded on this engine.
            BadRequest: the engine refuses the request, such as a prompt that is too long.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": list(messages),
            "max_tokens": 1,
            "cache_salt": cache_salt,
        }
        if tools:
            body |= {"tools": list(tools)}
        path = "/v1/chat/completions"
        _refused(await self._request("POST", path, self._timeout_s, body))

    async def tokenize(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of a chat with the generation prompt, by the engine's template."""
        body = {"messages": list(messages), "add_generation_prompt": True}
        response = await self._request("POST", "/tokenize", CONTROL_TIMEOUT_S, body)
        return _decoded(_refused(response), _Tokens).tokens

    async def sample(
        self,
        *,
        model: str,
        prompt_ids: Sequence[int],
        n: int,
        max_tokens: int,
        temperature: float,
        seed: int | None,
        priority: int = BACKGROUND_PRIORITY,
        cache_salt: str | None = None,
    ) -> list[Completion]:
        """Sample `n` completions of a token prompt from the plain softmax at `temperature`.

        Sample i is drawn with seed + i. Cancelling the call aborts the generation.

        Raises:
            UnknownModel: the adapter is not loaded on this engine.
            BadRequest: the engine refuses the request, such as a prompt that is too long.
        """
        body: dict[str, Any] = {
            "model": model,
            "prompt": list(prompt_ids),
            "n": n,
            "max_tokens": max_tokens,
            "temperature": temperature,
            # Everything that would make the sampled distribution other than what is trained on.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "logprobs": 0,  # of the sampled tokens only
            "return_token_ids": True,
            "priority": priority,
        }
        if seed is not None:
            body["seed"] = seed
        if cache_salt is not None:
            body["cache_salt"] = cache_salt
        response = await self._request("POST", "/v1/completions", self._timeout_s, body)
        choices = sorted(_decoded(_refused(response), _Choices).choices, key=lambda c: c.index)
        if len(choices) != n:
            raise EngineFailed(f"The engine answered {len(choices)} of {n} samples.")
        return [_completion(choice) for choice in choices]

    async def _request(
        self, method: str, path: str, timeout_s: float, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, CONTROL_TIMEOUT_S))
        try:
            return await self._http.request(method, path, json=body, timeout=timeout)
        except httpx.TimeoutException as error:
            raise EngineSilent("The engine did not answer in time.") from error
        except httpx.TransportError as error:
            raise EngineUnavailable("The engine cannot be reached.") from error
        except httpx.RequestError as error:
            raise EngineFailed("The engine's answer cannot be read.") from error


def _completion(choice: _Choice) -> Completion:
    logprobs = choice.logprobs.token_logprobs
    if len(choice.token_ids) != len(logprobs):
        raise EngineFailed(f"{len(choice.token_ids)} tokens, but {len(logprobs)} log-probabilities")
    return Completion(choice.token_ids, logprobs, choice.text, choice.finish_reason)


def _decoded(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.MsgspecError as error:
        raise EngineFailed(f"The engine's answer makes no sense: {error}") from error


def _error(response: httpx.Response) -> _Error:
    try:
        return msgspec.json.decode(response.content, type=_ErrorBody).error
    except msgspec.MsgspecError:
        return _Error(response.text[:MAX_ERROR_CHARS] or f"status {response.status_code}")


def _refused(response: httpx.Response) -> httpx.Response:
    """The response when it is a success, else the error that it stands for."""
    if response.is_success:
        return response
    error = _error(response)
    message = error.message[:MAX_ERROR_CHARS]
    if response.status_code >= 500:
        raise EngineUnavailable(f"The engine is not well: {message}")
    if response.status_code == 404 and error.param == "model":
        raise UnknownModel(message, param="model")
    if 400 <= response.status_code < 500:
        raise BadRequest(message, param=error.param)
    raise EngineFailed(f"The engine answered status {response.status_code}.")
