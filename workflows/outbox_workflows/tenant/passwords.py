"""Hashing passwords where they are typed in, so that none is ever written down.

A password in a workflow's input would be in the outbox and in Temporal's history, readable for everyone with access.
So the caller hashes first, and sends the hash.
"""

from __future__ import annotations

from outbox.model.errors import ConfigurationError

_MISSING = "hashing passwords needs argon2-cffi: pip install 'temporal-outbox[workflows]'"


def hashed_password(password: str) -> str:
    """Return the password's argon2id hash as a PHC string, each time with another salt.

    It takes some 50 ms of one core and 64 MiB on purpose; in an event loop, run it in a thread. Raises ValueError for
    an empty password, ConfigurationError where argon2-cffi is not installed.
    """
    try:
        from argon2 import PasswordHasher  # noqa: PLC0415 - only who hashes needs the library
    except ImportError:
        raise ConfigurationError(_MISSING) from None
    if not password:
        raise ValueError("the password is empty")
    return PasswordHasher().hash(password)
