"""The process that carries workflows out, and the client that applications use."""
