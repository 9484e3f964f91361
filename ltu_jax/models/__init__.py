"""The networks as nnx modules, and `Functional`, which binds flat parameters to them."""
