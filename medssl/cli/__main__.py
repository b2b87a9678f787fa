"""`python -m medssl.cli VERB ...`."""

from medssl.cli.main import main

if __name__ == "__main__":
    main()
