"""What scenarios put under load, and with what."""
