"""Catches the signals that stop a process from its first moment on, before there is anything to stop.

A container's first process has no default handlers: a SIGTERM that comes while its program is still being loaded would
be lost, and the process killed at the end of the grace period. So `listen` is called before all else is imported, and
this module imports next to nothing.
"""

from __future__ import annotations

import os
import signal

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Heard:
    listening = False
    asked = False


def listen() -> None:
    """Remember a signal that comes from now on; end the process at the second one."""
    _Heard.listening = True
    for number in signals():
        signal.signal(number, _hear)


def signals() -> tuple[signal.Signals, ...]:
    """What stops a worker. A SIGHUP that this process was started to ignore, as `nohup` does it, is none of them."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return _STOPPING[:-1] if ignored else _STOPPING


def asked() -> bool:
    """Whether a signal came before the program listened for it."""
    return _Heard.asked


def ignore() -> None:
    """Ignore signals from now on, if this process has listened: all is done, and its exit code is to say so."""
    if _Heard.listening:
        for number in signals():
            signal.signal(number, signal.SIG_IGN)


def _hear(_number: int, _frame: object) -> None:
    if _Heard.asked:
        os._exit(1)
    _Heard.asked = True
