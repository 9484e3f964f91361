"""What an answer in prose says: clauses, denials, word forms; used by every strict score."""
