"""What PostgreSQL needs beyond a URL: bounds for a network that hangs, so that nothing waits for an
answer that will never come.
"""

from __future__ import annotations

import socket
from typing import Any, Final, cast

import asyncpg
from sqlalchemy import Engine, event

CONNECT_S: Final = 10.0
# One command. A group commit has its own, shorter bound; migrations have none.
COMMAND_S: Final = 60.0
UNHEARD_S: Final = 30  # what was sent, or a keep-alive, was not acknowledged for so long
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5


def connect_args(*, is_patient: bool) -> dict[str, Any]:
    """Arguments for asyncpg. Patient: a command may take as long as it takes."""
    return {
        "timeout": CONNECT_S,
        "command_timeout": None if is_patient else COMMAND_S,
        "async_creator_fn": _connect,
    }


async def _connect(*args: Any, **options: Any) -> Any:
    """A connection. Whatever the way to the server is blocked by is a `ConnectionError`: no socket
    file after a shutdown, no such host, no answer in time.
    """
    try:
        return await cast(Any, asyncpg).connect(*args, **options)
    except ConnectionError:
        raise
    except OSError as error:
        raise ConnectionError(error.errno, str(error) or "no answer in time") from error


def install(engine: Engine) -> None:
    """Let the kernel give up connections whose other side is gone."""
    event.listen(engine, "connect", _keep_alive)


def _keep_alive(connection: Any, _record: Any) -> None:
    # asyncpg has no public way to its socket; without it the kernel's own bounds are in force.
    transport = getattr(connection.driver_connection, "_transport", None)
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_USER_TIMEOUT", UNHEARD_S * 1000),
    ):
        if hasattr(socket, name):  # Linux has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
