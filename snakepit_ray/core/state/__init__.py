"""What sessions remember: the types, constraints and versions of their variables."""
