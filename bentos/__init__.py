"""The services, each a bento: see the README of each folder."""

import os

# BentoML sets this variable for its own metrics process. One worker holds the device, so metrics need no shared files.
# prometheus_client reads the variable when it is first imported, so this comes before every other import.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
