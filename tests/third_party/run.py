"""Runs every client against one live server with a real engine: `python -m tests.third_party.run`.

Environments are made while the server starts. Names given as arguments choose clients.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ttrl_client.types import Limits, TenantSettings

from tests.e2e.live import LiveServer
from tests.third_party.environments import MADE, NODE, ROOT, NotMade, make
from tests.third_party.outcome import Outcome, read_outcome, summary, write_page
from tests.third_party.suite import CLIENTS, SCRIPTS, Client

FOLDER = ROOT / "var" / "clients"
INSTALLERS = 2
PAGE = 100
# The bundled model knows no JSON: left the choice, it would put blanks between two values for ever.
# So JSON is compact, and calls that must come are decoded as plain JSON, of which that holds.
ENGINE_ARGS = (
    "--structured-outputs-config.backend xgrammar"
    " --structured-outputs-config.disable_any_whitespace true"
)
ENGINE_ENVIRONMENT = {"VLLM_ENFORCE_STRICT_TOOL_CALLING": "0"}
START_TIMEOUT_S = 600.0


def main(chosen: Sequence[str]) -> int:
    """Run the clients; 1 where one failed, or none could be tried."""
    clients = [client for client in CLIENTS if not chosen or client.name in chosen]
    if not clients:
        sys.exit(f"There are: {' '.join(client.name for client in CLIENTS)}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.environ.update(ENGINE_ENVIRONMENT)
    server = LiveServer(
        FOLDER,
        engine_args=ENGINE_ARGS,
        engine_start_timeout_s=START_TIMEOUT_S,
    )
    with ThreadPoolExecutor(INSTALLERS) as installers:
        names = dict.fromkeys(client.environment for client in clients)
        made = {name: installers.submit(make, name) for name in names}
        try:
            server.start(START_TIMEOUT_S)
            outcomes = [_try(client, made[client.environment], server) for client in clients]
        finally:
            server.stop()
    print(summary(outcomes))
    if len(clients) == len(CLIENTS):
        write_page(outcomes)
    verdicts = {outcome.verdict for outcome in outcomes}
    return 1 if "FAILED" in verdicts or verdicts == {"SKIPPED"} else 0


def _try(client: Client, environment: Future[Path], server: LiveServer) -> Outcome:
    try:
        program = environment.result()
    except NotMade as error:
        print(f"{client.title}: SKIPPED: {error}", flush=True)
        return Outcome(client.title, skipped=str(error))
    started = time.monotonic()
    outcome = _run(client, program, _environment(server, client))
    seconds = time.monotonic() - started
    outcome = replace(outcome, logged=_logged(server, client.name), seconds=seconds)
    if not outcome.logged:
        outcome = replace(outcome, failed={**outcome.failed, "the log": "it has no row"})
    print(f"{client.title}: {outcome.verdict} in {outcome.seconds:.1f} s", flush=True)
    return outcome


def _logged(server: LiveServer, tenant: str) -> dict[str, int]:
    """The tenant's answered queries by route."""
    routes: Counter[str] = Counter()
    before: str | None = None
    while True:
        page = server.admin.list_queries(tenant, limit=PAGE, before=before)
        routes.update(query.route for query in page.items if query.status == "ok")
        if (before := page.next) is None:
            return dict(sorted(routes.items()))


def _run(client: Client, program: Path, environment: dict[str, str]) -> Outcome:
    log = FOLDER / f"{client.name}.log"
    folder = MADE / NODE if client.environment == NODE else SCRIPTS
    with log.open("w", encoding="utf-8") as errors:
        try:
            done = subprocess.run(
                [str(program), str(folder / client.script)],
                cwd=FOLDER,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                check=False,
                timeout=client.timeout_s,
            )
        except subprocess.TimeoutExpired:
            reason = f"it took longer than {client.timeout_s:.0f} s; see {log}"
            return Outcome(client.title, failed={"the script": reason})
    return read_outcome(client.title, done.stdout, done.returncode, log)


def _environment(server: LiveServer, client: Client) -> dict[str, str]:
    """What a script is told, with the keys of two new tenants: one is refused soon. Nothing may be
    fetched from a hub, and nothing told to anyone.
    """
    _, key = server.make_tenant(client.name)
    _, limited = server.make_tenant(f"{client.name}-limited", settings=_limited())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TTRL_")}
    return kept | {
        "TTRL_TEST_URL": server.base_url,
        "TTRL_TEST_KEY": key,
        "TTRL_TEST_LIMITED_KEY": limited,
        "TTRL_TEST_LABEL": f"{client.name}--v0",
        "TTRL_TEST_MODEL_DIR": server.settings.model,
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DO_NOT_TRACK": "1",
        "NODE_NO_WARNINGS": "1",
    }


def _limited() -> TenantSettings:
    """One request a minute."""
    return TenantSettings(answer="math", limits=Limits(requests_per_minute=1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
