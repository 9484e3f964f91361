"""The examination of data before training: `python -m data_pipelines.doctor`."""
