"""VI. The other loop: `fit`, and the optimisers it walks with."""
