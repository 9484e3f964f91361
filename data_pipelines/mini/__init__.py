"""The mini corpus: its plan of clips, synthesised audio, questions and answers."""
