"""Small loopback servers that tests start and stop."""
