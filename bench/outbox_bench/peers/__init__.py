"""The peers that `outbox bench peers` runs: each is a program in a process and with libraries of its own.

These files are copied beside the peers' libraries and run there, so each imports only `talk` and its peer.
"""
