"""The networks as nnx modules, and `build`, which gives them to the rest as pure functions."""
