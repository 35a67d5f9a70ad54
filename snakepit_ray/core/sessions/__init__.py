"""Which worker a session lives on, and the order of its requests."""
