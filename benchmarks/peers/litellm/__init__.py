"""The LiteLLM proxy, in an environment of its own."""
