"""From texts to token ids: prompts and brackets, exact cuts, and the model's own tokenizer."""
