"""What `data_pipelines.doctor` looks at, and how it tells."""
