"""A run's report as one HTML page that needs nothing else: no network, no scripts, no other file."""

from pipeline.page.rendering import render as render
