"""Closed-ended questions: the answer is a label in a short sentence."""
