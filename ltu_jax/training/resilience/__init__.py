"""Keep a long run right: guards, kept batches, watchdog, goodput, and hosts that agree."""
