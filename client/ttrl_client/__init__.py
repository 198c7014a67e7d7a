"""Clients for a TTRL server: typed, sync and async, and the `ttrl` command."""
