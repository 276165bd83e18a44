"""The core's commands, each with its options, its questions and its exit code.

They are named here and imported when they are asked for: a worker's start does not pay for the tables of the others.
"""

from __future__ import annotations

COMMANDS = {
    "adopt": "outbox.commands.adopt:adopt",
    "cancel": "outbox.commands.cancel:cancel",
    "config": "outbox.commands.config:config",
    "dead": "outbox.commands.dead:app",
    "doctor": "outbox.commands.doctor:doctor",
    "enqueue": "outbox.commands.enqueue:enqueue",
    "health": "outbox.commands.health:health",
    "limit": "outbox.commands.rules:limit",
    "migrate": "outbox.commands.migrate:migrate",
    "mode": "outbox.commands.mode:mode",
    "pause": "outbox.commands.rules:pause",
    "prune": "outbox.commands.prune:prune",
    "reset": "outbox.commands.reset:reset",
    "resume": "outbox.commands.rules:resume",
    "run": "outbox.commands.run:run",
    "status": "outbox.commands.status:status",
}
