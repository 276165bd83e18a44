"""The peers that `outbox bench peers` runs: each is a program in a process and with libraries of its own.

What stands here is copied beside the peers' libraries and runs there, so it imports nothing but `talk` and its peer.
"""
