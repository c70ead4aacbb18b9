"""From evaluation folders to one offline page: ``collect`` reads, ``statistics`` and ``tables`` summarise, ``figures``
draws, ``html`` writes. Reads result files only: nothing here imports torch or ray.
"""
