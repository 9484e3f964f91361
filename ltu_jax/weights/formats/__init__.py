"""Formats that weights come in and go out in, one file a format."""
