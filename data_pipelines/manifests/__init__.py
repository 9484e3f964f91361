"""Question-answer manifests: rows of official Open-ASQA JSON, and the clips that they make."""
