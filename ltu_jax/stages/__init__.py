"""L3: a stage of training put together from settings, weights, data and the one step."""
