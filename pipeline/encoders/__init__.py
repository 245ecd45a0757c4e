"""Everything about a model: its files, its tokens, its forward and its pooling."""
