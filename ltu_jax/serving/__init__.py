"""Answering for many at once: one engine whose slots requests enter and leave while others run."""
