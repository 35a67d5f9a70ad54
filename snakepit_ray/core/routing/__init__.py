"""Where a request goes, and how waiting requests meet free slots."""
