"""What test files share, each written once: exact answers, replayed noise, statistics, the derivative checker."""
