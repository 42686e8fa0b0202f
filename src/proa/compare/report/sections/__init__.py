"""The parts of the page, from its headline to how it was measured."""
