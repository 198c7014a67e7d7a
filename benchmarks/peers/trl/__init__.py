"""TRL (Hugging Face), in the environment of `requirements.txt`."""
