"""The protocol by which output appears: claims, create-only commits, receipts, and the manifest last."""
