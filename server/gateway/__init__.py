"""The OpenAI data plane: routes, relay, and the durable log."""
