"""Adapters that ship with the bridge, and bases of the users' own."""
