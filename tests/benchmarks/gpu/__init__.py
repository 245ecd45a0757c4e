"""One GPU beside its own limits and its peers, in one process and under nine minutes: `make bench-gpu`."""
