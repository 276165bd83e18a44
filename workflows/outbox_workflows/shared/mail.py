"""Sending mail: the port that workflows use, and its plainest implementation."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Protocol

from anyio import to_thread


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one recipient. `mail_id` stays the same when it is sent again, so that a repetition is recognised."""

    mail_id: str
    to: str
    subject: str
    text: str

    def message(self, sender: str) -> EmailMessage:
        """The mail as RFC 5322 has it."""
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"], message["Subject"] = sender, self.to, self.subject
        message["Message-ID"] = f"<{self.mail_id}>"
        message.set_content(self.text)
        return message


class MailRefused(Exception):
    """This mail will never be taken: its recipient is not known, or its content not wanted."""


class Mailer(Protocol):
    """Where mails go."""

    async def send(self, mail: Mail) -> None:
        """Send one mail, at least once. Raises OSError when that did not work and may work later, or MailRefused."""
        ...


class FileMailer:
    """Writes mails into a folder, one file each, for development and tests. A repeated mail overwrites itself."""

    def __init__(self, folder: Path, sender: str = "workflows@localhost") -> None:
        self._folder, self._sender = folder, sender

    async def send(self, mail: Mail) -> None:
        """Write the mail."""
        await to_thread.run_sync(self._write, mail)

    def _write(self, mail: Mail) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() or c in "@.-_" else "_" for c in mail.mail_id)
        whole = self._folder / f"{name}.eml"
        part = whole.with_suffix(".part")
        part.write_bytes(bytes(mail.message(self._sender)))
        part.replace(whole)
