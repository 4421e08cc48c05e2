"""`batchlab find`: the search for the largest micro-batch that fits."""
