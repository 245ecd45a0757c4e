"""The only Ray code: one dataset row a unit, read tasks, encoding actors, receipts back to the driver."""
