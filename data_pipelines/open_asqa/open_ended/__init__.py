"""Open-ended questions and answers by a language model, and which of them are accepted."""
