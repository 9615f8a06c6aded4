"""`python -m rfviz` is the command `rfviz`; `torchrun -m rfviz train` trains in several processes."""

from rfviz.book.cli import main

if __name__ == "__main__":
    main()
