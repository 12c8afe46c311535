"""Markets: driving their settlement to its end, and what the players are owed from it."""
