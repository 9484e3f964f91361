"""Sources of the mini corpus: pinned packages, voices, music, sounds, sentences, the plan."""
