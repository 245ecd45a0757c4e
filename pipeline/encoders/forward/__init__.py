"""From token ids to vectors: what every forward shares, and the padded one, which runs any model."""
