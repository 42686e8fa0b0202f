"""The only package that knows there are two kinds of isolation."""
