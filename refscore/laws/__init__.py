"""I. Laws that are known without sampling: mixtures, their posteriors, the laws of chains. Chapters 1, 2, 10, 13."""
