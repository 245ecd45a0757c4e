"""Run a job on a Ray cluster through its job server: what is sent, followed, and repeated until it is done."""
