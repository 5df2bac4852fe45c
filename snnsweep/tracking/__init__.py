"""Where a sweep is told to the world while it runs."""
