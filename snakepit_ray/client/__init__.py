"""The calling process: pool handles, the forms of a call, and what they know of the pool."""
