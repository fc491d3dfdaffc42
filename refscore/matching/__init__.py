"""V. What is minimised: times, weights, probes, objectives. Chapters 3, 4, 6."""
