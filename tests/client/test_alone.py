from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[2] / "client"

ALONE = f"""
import sys
sys.path.insert(0, {str(CLIENT)!r})

class Forbidden:
    names = {{"server", "adapters", "torch", "fastapi", "starlette", "sqlalchemy", "msgspec"}}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"the client must not import {{name}}")

sys.meta_path.insert(0, Forbidden())
"""


def run_alone(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE + code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=CLIENT.parent.parent,
        check=False,
    )


def test_the_client_and_the_command_work_without_the_server():
    done = run_alone(
        "import ttrl_client, ttrl_client.types, ttrl_client.cli\n"
        "from typer.testing import CliRunner\n"
        "shown = CliRunner().invoke(ttrl_client.cli.app, ['adapt', '--help'])\n"
        "assert shown.exit_code == 0, shown\n"
        "assert ttrl_client.TTRLClient(admin_key='k').close() is None\n"
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_that_check_can_fail():
    assert "must not import fastapi" in run_alone("import fastapi").stderr


def test_importing_the_client_does_not_import_the_command():
    done = run_alone("import ttrl_client\nassert 'typer' not in sys.modules\n")

    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_init_is_public():
    modules = {path.stem for path in (CLIENT / "ttrl_client").glob("*.py")}
    packages = {path.name for path in (CLIENT / "ttrl_client").iterdir() if path.is_dir()}

    assert all(name.startswith("_") for name in modules)
    assert packages - {"__pycache__"} == {"types", "cli"}
    assert (CLIENT / "ttrl_client" / "py.typed").exists()


def test_every_exception_is_exported_and_drawn():
    import ttrl_client
    from ttrl_client import _errors

    kinds = [ttrl_client.TTRLError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert getattr(ttrl_client, kind.__name__) is kind
        assert kind.__name__ in (_errors.__doc__ or "")
