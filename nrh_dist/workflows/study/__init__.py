"""``nrh study``: are mask-free harmonisers better than doing nothing? One experiment, from photos to report."""
