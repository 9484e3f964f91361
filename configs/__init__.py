"""Training configs (ml_collections): one file a stage, presets "", "mini" and "released"."""
