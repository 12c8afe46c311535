"""How each source is acquired, and the list of sources."""
