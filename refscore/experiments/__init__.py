"""Published results, as functions of a seed. Chapter 5."""
