"""Containers of numbers: what is read from a file and written to it, without its meaning."""
