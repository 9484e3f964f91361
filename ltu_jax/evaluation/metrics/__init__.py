"""Pure functions from answers to figures: closed answers, word errors, bootstrap intervals."""
