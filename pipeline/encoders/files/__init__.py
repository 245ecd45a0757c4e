"""Where the files of a model come from, and their copies on this node, known by their sha256."""
