"""Measurements behind the project's claims: one module a claim, results as JSON."""
