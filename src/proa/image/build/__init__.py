"""Images built step by step from a Containerfile."""
