"""The web process that a benchmark measures: the product's app on a SQLite database, with one
tenant, in front of a given engine.

`python -m benchmarks.gateway_under_test DATA_DIR ENGINE_URL IDENTITY_DIR [PORT]`

Several processes can have the same directory and the same port.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from benchmarks.product import make_tenants, serve_product
from server.app import access_log, create_app
from server.auth import Keys
from server.config import Settings
from server.parts import Parts

API_KEY: Final = "sk-ttrl-benchmark"


def main() -> None:
    """Serve until terminated; the URL is the first line printed."""
    data_dir, engine_url, identity, *port = sys.argv[1:]
    settings = Settings(data_dir=Path(data_dir))
    keys = Keys("unused", b"benchmark")
    asyncio.run(make_tenants(settings, keys, {"bench": API_KEY}))
    parts = Parts.assemble(
        settings, keys=keys, engine_urls=[engine_url], identity_dir=Path(identity)
    )
    app = create_app(parts, access_log=access_log(settings))
    serve_product(app, settings, port=int(port[0]) if port else 0)


if __name__ == "__main__":
    main()
