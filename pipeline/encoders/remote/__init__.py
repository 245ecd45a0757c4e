"""Hosted models behind an OpenAI-compatible API: `POST {base_url}/embeddings`."""
