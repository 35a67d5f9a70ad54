"""The start and the end of an interpreter: the order of their steps, what the host says, what is needed."""
