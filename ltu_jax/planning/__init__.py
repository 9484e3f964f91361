"""What a training step needs and how long it takes on a slice that is not at hand."""
