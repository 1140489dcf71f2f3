"""``python -m tmas.cli COMMAND``: the command line for cases where ``tmas`` is not on the path, such as torchrun."""

from tmas.cli.main import main

if __name__ == "__main__":
    main()
