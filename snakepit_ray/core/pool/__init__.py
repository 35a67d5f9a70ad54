"""A pool as a whole: where its workers fit, and when it refuses."""
