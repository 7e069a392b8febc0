"""What every bento is served with; the only code that touches BentoML's legacy service and its gRPC server."""

import os

# BentoML sets it for its own metrics process. One worker holds the device, so its metrics need no files to be shared
# in. prometheus_client reads this when it is first imported, which whatever a bento imports next may do.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
