"""L2: optimiser, losses, the one train step, the loop, checkpoints; knows no model."""
