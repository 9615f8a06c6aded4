"""`python -m rfviz` is the command `rfviz`; `torchrun -m rfviz` runs it in several processes that share the work."""

import sys


def main() -> None:
    """Run the command line; whoever presses Ctrl-C while it is still loading sees no traceback either."""
    try:
        from rfviz.book import cli
    except KeyboardInterrupt:
        sys.stderr.write("rfviz: interrupted before it began.\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
