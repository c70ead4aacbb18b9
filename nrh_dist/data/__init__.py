"""Files: the index of a data root, its check, the generators, the pack and the order in which it is fed."""
