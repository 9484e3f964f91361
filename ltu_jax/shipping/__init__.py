"""From a finished run to the model that the package ships: bases, parity, data, card."""
