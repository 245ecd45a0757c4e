"""What a model is, read from its configuration alone: its family and sizes, and the modules after it."""
