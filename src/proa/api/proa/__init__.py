"""Extensions under `/proa/`."""
