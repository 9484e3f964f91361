"""L0: names, parameter trees, meshes, processes, files. Imports numpy and jax only."""
