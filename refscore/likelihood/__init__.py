"""VII. Densities: by the probability flow, and by a bound. Chapters 11 and 12."""
