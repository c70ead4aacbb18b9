"""The report of ``nrh study``: reads what the study wrote, and nothing else."""
