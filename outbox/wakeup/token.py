"""Where Realtime's access token comes from: a setting, a file that is rotated, or a command that prints it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from subprocess import CalledProcessError

import anyio

from outbox.model.errors import ConfigurationError

_COMMAND_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Token:
    """Read for each connection and before each expiry. The first source that is set counts."""

    command: str | None
    file: str | None
    value: Callable[[], str] | str = field(repr=False)
    """The token, or what reads it."""

    async def read(self) -> str:
        """Return the token. Raises ConfigurationError that names the setting."""
        if self.command:
            return await self._ask(self.command)
        if self.file:
            try:
                token = (await anyio.Path(self.file).read_text(encoding="utf-8")).strip()
            except (OSError, ValueError) as error:  # not there, or no text
                raise ConfigurationError(f"OUTBOX_REALTIME_TOKEN_FILE: {error}") from error
            return self._checked(token, "OUTBOX_REALTIME_TOKEN_FILE")
        return self.value if isinstance(self.value, str) else self.value()

    async def _ask(self, command: str) -> str:
        try:
            with anyio.fail_after(_COMMAND_TIMEOUT_S):
                done = await anyio.run_process(shlex.split(command), stdin=None)
        except TimeoutError as error:
            raise ConfigurationError("OUTBOX_REALTIME_TOKEN_COMMAND: no answer in time") from error
        except CalledProcessError as error:  # its own text quotes the arguments, which may be credentials
            ended = f"it ended with exit status {error.returncode}"
            raise ConfigurationError(f"OUTBOX_REALTIME_TOKEN_COMMAND: {ended}") from None
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"OUTBOX_REALTIME_TOKEN_COMMAND: {error}") from error
        return self._checked(done.stdout.decode("utf-8", "replace").strip(), "OUTBOX_REALTIME_TOKEN_COMMAND")

    @staticmethod
    def _checked(token: str, setting: str) -> str:
        if not token or not token.isprintable() or " " in token:
            raise ConfigurationError(f"{setting} gave no token")
        return token
