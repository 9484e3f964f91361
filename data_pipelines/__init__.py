"""Mini Open-ASQA: sources, question-and-answer builders, TFRecords and the input pipeline."""
