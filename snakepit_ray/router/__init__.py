"""The router actor: which workers there are, which session lives where, who may be replaced."""
