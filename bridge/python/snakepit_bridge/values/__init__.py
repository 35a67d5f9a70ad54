"""Values as JSON and its tags, and failures."""
