"""Arrays, tables and bytes: what is carried in a buffer."""
