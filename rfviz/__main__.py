"""`python -m rfviz` is the command `rfviz`; `torchrun -m rfviz` runs it in several processes that share the work."""

from rfviz.cli import main

if __name__ == "__main__":
    main()
