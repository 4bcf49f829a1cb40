"""`python -m withlogits` is the command `withlogits`."""

from withlogits.cli import main

if __name__ == "__main__":
    main()
