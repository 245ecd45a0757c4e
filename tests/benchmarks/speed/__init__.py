"""embatch beside its peers in one run, pairs in turn: `make bench`."""
