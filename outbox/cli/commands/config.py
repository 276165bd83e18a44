"""The command `outbox config`: every setting with its value and where it comes from, and every fault at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from outbox.cli.console import Console
from outbox.config.environment_model import without_credentials
from outbox.config.report import sink_settings
from outbox.config.settings import LoadedSettings, Settings, environment_name, load_sink, read
from outbox.model.errors import ConfigurationError
from outbox.model.json_output import json_output
from outbox.model.mask import MASK
from outbox.model.sink import Setting
from outbox.postgres.address import Address, Faults, Given
from outbox.postgres.address.url import masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

from outbox.cli.format import NEVER_CUT


def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every setting in effect, and where it comes from.

    Secrets are masked. Exit 2 if anything is wrong.
    """
    reading, faults = read(), Faults()
    groups = {
        "database": list(_connection(reading.settings.dsn)),
        "listen": list(_connection(reading.settings.listen_dsn)),
        "worker": list(_worker(reading)),
    }
    if reading.settings.listen_dsn is reading.settings.dsn:
        del groups["listen"]
    faults.found += reading.faults
    with faults:
        load_sink(reading.settings.sink)
    for name, of_sink in sink_settings():
        groups[name] = list(of_sink.settings)
        faults.found += of_sink.faults
    if as_json:
        report = {"settings": groups, "faults": faults.found, "doubts": reading.doubts}
        sys.stdout.buffer.write(json_output(report, indent=True))
    else:
        show_settings(groups, reading.doubts)
        sys.stdout.flush()
    faults.settle()


def _connection(address: Address) -> Iterator[Setting]:
    """The settings that lead to a database; none if they have faults, which are reported elsewhere."""
    try:
        shown = list(address.resolve().shown())
    except ConfigurationError:
        return
    yield from (Setting(given.name, given.value, given.origin) for given in shown)


def _worker(reading: LoadedSettings) -> Iterator[Setting]:
    for field in Settings.model_fields:
        value = _shown(field, getattr(reading.settings, field))
        yield Setting(environment_name(field), value, reading.origins.get(field, "default"))


def _shown(field: str, value: object) -> str | float | bool | None:
    """A value for people, without what must not be seen."""
    if isinstance(value, SecretStr):
        return masked(Given(value.get_secret_value(), field, "")) if field.endswith("_url") else MASK
    if field == "realtime_token_command" and value is not None:
        return f"{str(value).split(maxsplit=1)[0]} …"  # its arguments may be credentials
    if field == "supabase_url" and value is not None:
        return without_credentials(str(value))
    return value if isinstance(value, str | float | int | bool) else None


def show_settings(groups: dict[str, list[Setting]], doubts: Sequence[str]) -> None:
    """Settings, their values, and where they come from; what is doubtful about them."""
    console = Console(highlight=False, soft_wrap=True, width=NEVER_CUT)
    for title, settings in groups.items():
        table = Table(title, "", "from", box=None, title_justify="left", pad_edge=False)
        for setting in settings:
            value = str(setting.value).lower() if isinstance(setting.value, bool) else _plain(setting.value)
            default = setting.origin.startswith("default")
            table.add_row(*map(escape, (setting.name, value, setting.origin)), style="dim" if default else None)
        if settings:
            console.print(table)
            console.print()
    for doubt in doubts:
        console.print(Text(f"doubtful: {doubt}", "yellow"))


def _plain(value: object) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
