"""Third-party sources: pinned packages that are read, not installed."""
