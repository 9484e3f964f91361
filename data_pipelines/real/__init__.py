"""Real recordings of pinned packages: fetched, described, scored by a teacher, and mixed."""
