"""Mails through a real SMTP server: what it takes, refuses for now, refuses for good, and how it is reached."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import AuthResult

from outbox.model.errors import ConfigurationError
from outbox_workflows.shared.mail import Mail, MailRefused
from outbox_workflows.shared.smtp import SmtpMailer, SmtpServer, smtp_server
from tests.support.mail_server import Post, mail_server

MAIL = Mail("invitation-7@acme.example.test", "ada@example.org", "Willkommen, Zoë", "Grüße\n.\nfrom Acme\n")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS, and the authority that vouches for it."""
    authority, folder = trustme.CA(), tmp_path_factory.mktemp("tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return context, folder / "ca.pem"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example", SmtpServer("mail.example", 587)),
        ("smtps://ada:p%40ss@mail.example/", SmtpServer("mail.example", 465, "tls", "ada", "p@ss")),
        ("smtp://localhost:1025?security=none", SmtpServer("localhost", 1025, "none")),
    ],
)
def test_a_url_says_where_the_server_is(url: str, server: SmtpServer) -> None:
    assert smtp_server(url) == server


@pytest.mark.parametrize(
    "url",
    ["", "http://mail", "smtp://", "smtp://a:secret@", "smtp://a:secret@mail:port", "smtp://a:sec/ret@mail"]
    + ["smtp://mail?security=tsl", "smtp://mail?tls=no"],
)
def test_a_url_that_cannot_be_read_is_reported_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write smtp://") as caught:
        smtp_server(url)
    assert "secret" not in str(caught.value)


async def test_a_mail_arrives_whole_and_a_repeated_one_has_the_same_message_id() -> None:
    post = Post()
    with mail_server(post) as server:
        mailer = SmtpMailer(server, "Acme <noreply@example.test>")
        for _ in range(2):
            await mailer.send(MAIL)
    contents = [envelope.content for envelope in post.taken]
    assert [(envelope.mail_from, envelope.rcpt_tos) for envelope in post.taken] == [
        ("noreply@example.test", ["ada@example.org"])
    ] * 2
    assert all(b"Message-ID: <invitation-7@acme.example.test>\r\n" in content for content in contents)
    arrived = message_from_bytes(contents[0], policy=default)
    text = arrived.get_content().replace("\r\n", "\n")
    assert (arrived["Subject"], text) == (MAIL.subject, MAIL.text)


async def test_a_mail_is_sent_once_the_server_has_it_although_the_farewell_fails() -> None:
    class Silent(Post):
        async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
            await asyncio.Event().wait()
            return "221 Bye"

    post = Silent()
    with mail_server(post) as server:
        await SmtpMailer(server, "noreply@example.test").send(MAIL)
    assert len(post.taken) == 1


@pytest.mark.parametrize("where", ["rcpt_replies", "replies"])
async def test_what_is_refused_for_now_may_be_tried_again_and_for_good_not(where: str) -> None:
    post = Post()
    setattr(post, where, ["451 greylisted, come\tback", "550 no such mailbox"])
    with mail_server(post) as server:
        mailer = SmtpMailer(server, "noreply@example.test")
        with pytest.raises(OSError, match="mail to ada@example.org: the server said 451 greylisted, come back"):
            await mailer.send(MAIL)
        with pytest.raises(MailRefused, match="mail to ada@example.org: the server said 550 no such mailbox"):
            await mailer.send(MAIL)
        await mailer.send(MAIL)
    assert post.taken[-1].rcpt_tos == ["ada@example.org"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_password_is_sent_under_tls_only(authority: tuple[ssl.SSLContext, Path], security: Any) -> None:
    context, ca_file = authority
    post = Post()

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == b"secret", handled=False)

    secure: dict[str, Any] = {"authenticator": check}
    if security == "starttls":
        secure |= {"tls_context": context, "require_starttls": True, "auth_required": True}
    else:
        secure |= {"ssl_context": context, "auth_require_tls": False}  # it does not know that TLS is there already
    with mail_server(post, **secure) as where:
        server = replace(where, security=security, user="acme", password="secret", ca_file=ca_file)
        await SmtpMailer(server, "noreply@example.test").send(MAIL)
        assert "secret" not in repr(server)
        with pytest.raises(OSError, match="certificate"):  # the system's authorities do not know it
            await SmtpMailer(replace(server, ca_file=None), "noreply@example.test").send(MAIL)
        with pytest.raises(OSError, match="535"):  # it may be repaired without the mail
            await SmtpMailer(replace(server, password="wrong"), "noreply@example.test").send(MAIL)
    assert len(post.taken) == 1


async def test_without_starttls_nothing_is_sent() -> None:
    post = Post()
    with mail_server(post) as where, pytest.raises(OSError, match="STARTTLS"):
        await SmtpMailer(replace(where, security="starttls"), "noreply@example.test").send(MAIL)
    assert post.taken == []


async def test_a_server_that_is_away_or_silent_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = SmtpServer("127.0.0.1", silent.getsockname()[1], security="none", timeout_s=0.2)
        with pytest.raises(TimeoutError):
            await SmtpMailer(server, "noreply@example.test").send(MAIL)
    with pytest.raises(OSError, match="mail to ada@example.org: .* refused"):
        await SmtpMailer(server, "noreply@example.test").send(MAIL)


def test_without_its_library_a_mailer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtplib", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'temporal-outbox\[workflows\]'"):
        SmtpMailer(SmtpServer("mail.example"), "noreply@example.test")
