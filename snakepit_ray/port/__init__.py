"""What all actors and callers share of Ray."""
