"""The store of sessions: its actor, and what it keeps on the disk."""
