"""Padding-free forward on CPU: texts end to end, so that no product is spent on padding."""
