"""A machine's disk: what runs on it, found in its files' names and in the few that are read."""
