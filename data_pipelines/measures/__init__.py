"""What is measured of recordings: clipping, voices, and the classes of a speaking style."""
