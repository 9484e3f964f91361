"""L2: weights in and out. One table per foreign format, one strict reader of tables, one store."""
