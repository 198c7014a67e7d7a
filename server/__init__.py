"""The server: HTTP, database and jobs. Never imports torch, peft, transformers or vllm."""
