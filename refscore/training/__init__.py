"""VI. The other loop: `fit`, and its optimisers."""
