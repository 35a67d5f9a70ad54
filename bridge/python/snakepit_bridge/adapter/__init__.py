"""Finding an adapter and its commands, checking arguments, running commands, and what a command sees."""
