"""One worker and its interpreter: queue, states, replacement, health."""
