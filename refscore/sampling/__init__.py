"""III. Walking: one loop, and the steps it walks. Chapters 2, 6, 7, 10, 13."""
