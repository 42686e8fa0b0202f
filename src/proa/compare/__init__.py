"""The same workload in several forms, measured side by side; what follows from it is shown."""
