"""`python -m usercore`."""

from usercore.cli import main

if __name__ == "__main__":
    main()
