"""The visible cases of advice, written by hand: a module of `CASES` per kind of subject."""
