"""The adaptation cycle: from logged queries to a promoted adapter version."""
