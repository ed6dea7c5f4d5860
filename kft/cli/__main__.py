"""`python -m kft.cli`, which is the command `kft`."""

from kft.cli import app

app(prog_name="kft")
