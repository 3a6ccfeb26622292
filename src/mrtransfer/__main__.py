"""``python -m mrtransfer``, and so ``torchrun -m mrtransfer``: the command line."""

from mrtransfer.cli.main import main

if __name__ == "__main__":
    main()
