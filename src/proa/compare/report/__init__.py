"""What a comparison found, shown: in the terminal, as a page, and against an earlier one."""
