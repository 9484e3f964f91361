"""Synthesis of the mini corpus: sounds, music, voices, and measures of them."""
