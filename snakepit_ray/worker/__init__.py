"""The worker actor: how requests reach one supervisor, and what it shares with its pool."""
