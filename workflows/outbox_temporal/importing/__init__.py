"""`outbox import`: moves workflows out of a home-made engine into messages, each row once."""
