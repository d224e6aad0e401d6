"""`python -m hierlmm`: the command line."""

from hierlmm.cli import main

if __name__ == "__main__":
    main()
