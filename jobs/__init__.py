"""The edge: command line, job specs, and whatever starts a run from outside."""
