"""`python -m calfin_cloud.cli VERB ...`."""

from calfin_cloud.cli import command

command()
