"""vLLM: process supervision, client, pool of engines, adapter registry."""
