"""II. Adding noise, and the way back: SDEs, chains, times, prior, exact scores, reversal. Chapters 6 to 9, 12."""
