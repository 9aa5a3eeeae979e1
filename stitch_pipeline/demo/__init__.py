"""A simulated online shop: the tracker files it would send, and who was really behind each event."""
