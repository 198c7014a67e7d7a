"""The bundled tiny model, how it was made, and the demo's traffic."""
