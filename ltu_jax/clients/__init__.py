"""Models that score answers: embedders, judges, CLAP, and servers that have them."""
