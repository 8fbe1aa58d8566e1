"""`python -m reconcile`: the same as the command `imagebot`."""

from reconcile.cli.main import main

main()
