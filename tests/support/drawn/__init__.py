"""The held-out cases of advice: `draw(random, number)` of a module per kind of subject."""
