"""Records to batches, in this order of modules.

`mixtures` (which pairs) -> `token_counts` (their tokens) -> `row_packing` (which share a row) ->
`row_order` (which rows a step has) -> `rows` (one row laid out, in a process of `row_workers`) ->
`row_stream` (rows ahead of the step) -> `pipeline` (batches of a host); `data_config` holds the
settings, `row_report` counts an epoch.
"""
