"""`python -m kft.cli`, which is the command `kft`."""

from kft.cli import app

if __name__ == "__main__":
    app(prog_name="kft")
