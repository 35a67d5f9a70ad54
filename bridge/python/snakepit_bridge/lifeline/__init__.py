"""No process is left behind: the end of the host, signals, forks, and what commands have started."""
