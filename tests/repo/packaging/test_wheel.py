"""The built wheel, installed outside the checkout: with everything, and in an environment without Temporal's SDK."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import anyio
import asyncpg
import pytest
from anyio import to_thread
from temporalio.client import Client
from temporalio.service import RPCError

from tests.support.eventually import eventually
from tests.support.shared import SharedServer

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow("builds the package and environments for it"), pytest.mark.timeout(180)]
MY_SINK = """
import os
from contextlib import asynccontextmanager
from pathlib import Path
from outbox.model.sink import Delivered

class MySink:
    async def deliver(self, message):
        Path(os.environ["OUTBOX_TEST_DELIVERED"]).write_text(str(message.message_id))
        return Delivered()

    async def probe(self):
        return None

@asynccontextmanager
async def sink(context):
    yield MySink()
"""

MY_CONVERTER = """
from dataclasses import replace
from temporalio.converter import DataConverter, PayloadCodec
import workflows

class Codec(PayloadCodec):
    async def encode(self, payloads):
        for payload in payloads:
            payload.metadata["encoded-by"] = workflows.NAME.encode()
        return list(payloads)

    async def decode(self, payloads):
        return list(payloads)

converter = replace(DataConverter.default, payload_codec=Codec())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with files named like folders and modules in this repository."""
    for name in ("workflows", "bench", "config", "logs"):
        (tmp_path / f"{name}.py").write_text(f"NAME = {f'of the project: {name}'!r}\n")
    for folder in ("sql", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("NAME = 'the project'\n")
    (tmp_path / "converter.py").write_text(MY_CONVERTER)
    return tmp_path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(ROOT), cwd=ROOT)
    [built] = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=["everything", "no temporalio"])
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The `bin` folder of an environment with the wheel and its dependencies: all, or all but temporalio."""
    without = {"temporalio"} if request.param == "no temporalio" else set()
    with environment_with(wheel, tmp_path_factory.mktemp("environment"), without) as programs:
        yield programs


@pytest.fixture
def complete(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The `bin` folder of an environment with the wheel and all its dependencies."""
    with environment_with(wheel, tmp_path_factory.mktemp("complete"), set()) as programs:
        yield programs


@contextmanager
def environment_with(wheel: Path, environment: Path, without: set[str]) -> Iterator[Path]:
    """Install the wheel in a new environment, and give its `bin` folder.

    The dependencies are links into the environment of the tests. Its own installation of this project is left out.
    """
    missing = without | {
        "temporal_outbox",
        "__editable__",
        "_temporal_outbox",
        "outbox",
        "outbox_bench",
        "outbox_temporal",
        "outbox_workflows",
    }
    venv.create(environment, with_pip=False)
    site = next(environment.glob("lib/python*/site-packages"))
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if entry.name.split(".")[0].split("-")[0] not in missing and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet", str(wheel), cwd=site)
    yield environment / "bin"
    for link in site.iterdir():
        if link.is_symlink():
            link.unlink()  # cleaning the folder must not follow it


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed, and return what it wrote to standard output."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_wheel_holds_the_packages_and_the_sql_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "outbox",
        "outbox_bench",
        "outbox_temporal",
        "outbox_workflows",
        "temporal_outbox",
    }
    for path in sorted((ROOT / "sql").rglob("*.sql")):
        assert f"outbox/{path.relative_to(ROOT)}" in names
    assert {"outbox/py.typed", "outbox_temporal/py.typed"} <= set(names)


def test_command_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import outbox; print(outbox.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "migrate" in run(installed / "outbox", "--help", cwd=tmp_path)


@pytest.mark.parametrize("words", [["routes", "check", "--file"], ["import"]], ids=lambda words: words[0])
def test_a_command_with_a_missing_dependency_says_so_in_one_line(
    installed: Path, tmp_path: Path, words: list[str]
) -> None:
    command = [str(installed / "outbox"), *words, "absent.toml"]
    done = subprocess.run(command, cwd=tmp_path, env=clean({}), capture_output=True, text=True, timeout=60)
    has_temporalio = any(installed.parent.glob("lib/python*/site-packages/temporalio"))
    expected = (
        "absent.toml cannot be read"
        if has_temporalio
        else f"`outbox {words[0]}` cannot be loaded: No module named 'temp"
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"outbox: {expected}")
    assert done.stderr.count("\n") == 1


def test_every_module_of_the_core_imports(installed: Path, tmp_path: Path) -> None:
    script = (
        "import importlib, pkgutil, outbox, sys\n"
        "for module in pkgutil.walk_packages(outbox.__path__, 'outbox.'): importlib.import_module(module.name)\n"
        "assert not [name for name in sys.modules if name.startswith(('temporalio', 'workflows'))]"
    )
    run(installed / "python", "-c", script, cwd=tmp_path)


async def test_installed_relay_delivers_to_a_sink_of_ones_own(
    installed: Path, empty_database: str, tmp_path: Path
) -> None:
    (tmp_path / "my_sink.py").write_text(MY_SINK)
    environment = {
        "DATABASE_URL": empty_database,
        "PYTHONPATH": str(tmp_path),
        "OUTBOX_SINK": "my_sink:sink",
        "OUTBOX_TEST_DELIVERED": str(tmp_path / "delivered"),
    }

    async def outbox(*arguments: str) -> str:
        return await to_thread.run_sync(partial(run, installed / "outbox", *arguments, cwd=tmp_path, **environment))

    await outbox("migrate")
    message_id = (await outbox("enqueue", "orders", '{"id": 1}')).strip()
    async with await anyio.open_process([installed / "outbox", "run"], env=clean(environment), cwd=tmp_path) as worker:
        await eventually(anyio.Path(environment["OUTBOX_TEST_DELIVERED"]).exists, bool)
        worker.terminate()
        assert await worker.wait() == 0
    assert (tmp_path / "delivered").read_text() == message_id
    assert '"completed"' in await outbox("status", "--json")


@pytest.mark.timeout(400)
async def test_a_project_with_files_of_our_names_can_use_everything(
    complete: Path, project: Path, empty_database: str, temporal_server: SharedServer, temporal_client: Client
) -> None:
    settings = {
        "DATABASE_URL": empty_database,
        "TEMPORAL_ADDRESS": temporal_server.address,
        "OUTBOX_TEMPORAL_DATA_CONVERTER": "converter:converter",
        "PYTHONPATH": str(project),
    }

    async def outbox(*arguments: str) -> str:
        return await to_thread.run_sync(partial(run, complete / "outbox", *arguments, cwd=project, **settings))

    await outbox("migrate")
    await outbox("workflows", "migrate")
    connection = await asyncpg.connect(empty_database, timeout=10)
    start = "select outbox.start_workflow('Greeting', 'names', '{}', task_queue => 'names')"
    await connection.execute(start)
    await connection.execute("create database names_bench")  # `bench` refuses a database that a worker may still use
    await connection.close(timeout=10)
    bench = f"{empty_database.rpartition('/')[0]}/names_bench"
    async with started(complete, project, settings, "run"):
        await eventually(partial(first_input_of, temporal_client, "names"), lambda encoder: encoder is not None)
    assert await first_input_of(temporal_client, "names") == b"of the project: workflows"
    assert "safe to start" in await outbox("doctor")
    async with started(complete, project, settings, "workflows", "run") as log:
        await eventually(anyio.Path(log).read_text, lambda text: "workflow worker started" in text)
    assert "orders committed" in await outbox("demo", "--orders", "10", "--rate", "100")
    assert "brief" in await outbox("bench", "restricted", "--brief", "--dsn", bench, "--yes")


async def first_input_of(client: Client, workflow_id: str) -> bytes | None:
    """Who encoded the workflow's input; None while there is no such workflow."""
    try:
        history = await client.get_workflow_handle(workflow_id).fetch_history()
    except RPCError:
        return None
    [payload] = history.events[0].workflow_execution_started_event_attributes.input.payloads
    return payload.metadata["encoded-by"]


@asynccontextmanager
async def started(programs: Path, cwd: Path, settings: dict[str, str], *command: str) -> AsyncIterator[Path]:
    """Run a command of `outbox` for the block, and give its log. SIGTERM must end it in order."""
    log = cwd / f"{'-'.join(command)}.log"
    with log.open("wb") as out:
        process = await anyio.open_process(
            [programs / "outbox", *command], env=clean(settings), cwd=cwd, stdout=out, stderr=out
        )
    async with process:
        try:
            yield log
        except BaseException as error:
            error.add_note(log.read_text()[-3000:])
            raise
        process.terminate()
        assert await process.wait() == 0, log.read_text()[-3000:]


def clean(environment: dict[str, str]) -> dict[str, str]:
    """This process's environment without what would lead a child back into the checkout."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "VIRTUAL_ENV"))}
    return ours | environment
