"""Speech to learn from: sentences that many voices speak, rendered and kept."""
