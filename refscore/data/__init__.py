"""Numbers in and out of files."""
