"""`python -m wanc`."""

from wanc.cli import main

if __name__ == "__main__":
    main()
