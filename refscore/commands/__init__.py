"""The commands of `refscore`, a file each."""
