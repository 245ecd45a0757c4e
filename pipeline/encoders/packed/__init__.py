"""Padding-free forward: texts end to end, so that no product is spent on padding."""
