"""``python -m tmas.cli COMMAND``: the command line where ``tmas`` is not on the path, as under torchrun."""

from tmas.cli.main import main

if __name__ == "__main__":
    main()
