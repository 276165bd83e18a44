"""What a bootstrap must be like. Pure; `app.organization_bootstrap_fault` says the same of its event."""

from __future__ import annotations

import re

from outbox_workflows.organization.types import Bootstrap
from outbox_workflows.shared.storable_text import is_storable

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LABEL = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"[!-?A-~]+@[!-?A-~]+")
_NOT_PLAIN = frozenset('<>,;:"()\\')
_LONGEST_NAME, _LONGEST_ADDRESS, _MOST_INVITATIONS = 200, 254, 100


def faults(bootstrap: Bootstrap) -> list[str]:
    """What is wrong with a bootstrap, a line each."""
    found = [
        (
            not _UUID.fullmatch(bootstrap.organization_id),
            "organization_id must be a UUID in lower case: it becomes the workflow id",
        ),
        (not _UUID.fullmatch(bootstrap.tenant_id), "tenant_id must be a UUID in lower case"),
        (not bootstrap.stream or not is_storable(bootstrap.stream), "stream must name the events' stream"),
        (not _is_name(bootstrap.name), f"name must be one line of at most {_LONGEST_NAME} characters"),
        (not _LABEL.fullmatch(bootstrap.subdomain), "subdomain must be one DNS label in lower case"),
        (len(bootstrap.invitations) > _MOST_INVITATIONS, f"invitations must be at most {_MOST_INVITATIONS}"),
        (
            not all(map(_is_address, bootstrap.invitations)),
            "invitations must be plain e-mail addresses, such as ada@example.org",
        ),
    ]
    return [fault for wrong, fault in found if wrong] + bootstrap.patience.faults()


def _is_name(name: str) -> bool:
    return bool(name.strip()) and not set(name) & {"\n", "\r"} and len(name) <= _LONGEST_NAME and is_storable(name)


def _is_address(address: str) -> bool:
    plain = _ADDRESS.fullmatch(address) and not _NOT_PLAIN & set(address)
    return bool(plain) and len(address) <= _LONGEST_ADDRESS
