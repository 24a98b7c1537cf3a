"""`python -m pa`: the command line."""

from pa.cli import main

main()
