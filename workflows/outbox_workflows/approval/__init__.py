"""Approvals: one person asks, another decides, or the next in the chain is asked. Simple, and with escalation."""
