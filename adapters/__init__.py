"""What an adapter version is, and how one is made and judged. No HTTP, no SQL."""
