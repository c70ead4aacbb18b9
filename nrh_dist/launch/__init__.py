"""Ray: the only floor that imports it."""
