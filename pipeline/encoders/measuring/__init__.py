"""A model tried and timed on this machine, before a job runs with it."""
