"""How work is divided: the size of chunks, the credit of streams."""
