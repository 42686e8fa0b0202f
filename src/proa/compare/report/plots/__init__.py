"""Plots, drawn as SVG: a function each, that takes what was found and answers markup."""
