"""VIII. Is it right? Distances with their errors, the floor of a loss, tables against the truth."""
