"""`/v1/responses`: OpenAI's Responses API, translated to a chat and back. Nothing is kept."""
