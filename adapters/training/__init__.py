"""The trainer process: GRPO on one LoRA adapter at a time over a frozen base model.

Nobody imports this package: it is run as `python -m adapters.training` and spoken to in the
messages of `adapters.batch`. It is the only place that imports torch, peft and transformers.
"""
