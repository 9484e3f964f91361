"""Open-ASQA: from fourteen sources' own metadata to question-answer pairs."""
