"""The limit of a Python gateway: a relay that does nothing else."""
