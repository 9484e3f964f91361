"""Reading of answers in prose: clauses, denials, word forms; used by every strict score."""
