"""From answers to scores: the official rules (`paper`) and those without a guess (`strict`)."""
