"""Open-ended questions: the answer is prose."""
