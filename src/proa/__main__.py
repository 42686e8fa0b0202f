"""`python -m proa`; `bin/proa` runs this file by its path, without an installation."""

import sys

if not __package__:
    sys.path.insert(0, __file__.rpartition("/proa/")[0])

from proa.cli.main import main

if __name__ == "__main__":
    main()
