"""Which clients are run, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.third_party.environments import MAIN, NODE

SCRIPTS = Path(__file__).with_name("clients")


@dataclass(frozen=True, slots=True)
class Client:
    """One script, which tries one client. `title` is what the table calls it."""

    title: str
    environment: str
    script: str
    timeout_s: float = 300.0

    @property
    def name(self) -> str:
        """Its tenant, and its log; without the ending."""
        return self.script.partition(".")[0].replace("_", "-")


CLIENTS = (
    Client("openai (Python)", "openai", "openai_python.py"),
    Client("anthropic (Python)", "anthropic", "anthropic_python.py"),
    Client("langchain-openai", "langchain", "langchain_chat.py"),
    Client("pydantic-ai", "pydantic_ai", "pydantic_ai_agent.py"),
    Client("instructor", "instructor", "instructor_models.py"),
    Client("litellm SDK", "litellm", "litellm_sdk.py"),
    Client("openai (npm)", NODE, "openai_node.mjs"),
    Client("Anthropic SDK (npm)", NODE, "anthropic_node.mjs"),
    Client("Vercel AI SDK", NODE, "vercel_ai.mjs"),
    Client("lm_eval", "lm_eval", "lm_eval_task.py"),
    Client("vllm bench serve", MAIN, "vllm_bench.py"),
)
