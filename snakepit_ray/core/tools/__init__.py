"""Which tools there are: names, descriptions, whose they are."""
