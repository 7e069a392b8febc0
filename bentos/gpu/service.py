"""The service that `bentoml serve-grpc bentos.gpu.service:svc` serves."""

from __future__ import annotations

from bentos.gpu.nvml_driver import NvmlDriver
from bentos.gpu.servicer import GPUServicer
from bentos.gpu.settings import GPUSettings
from bentos.serving.capability import Mount
from bentos.serving.service import build_service, load_settings
from torchless.contracts.gpu.v1.gpu_pb2_grpc import add_GPUServiceServicer_to_server

settings = load_settings(GPUSettings)

svc = build_service(
    "torchless-gpu",
    Mount(
        full_name="torchless.gpu.v1.GPUService",
        make=lambda: GPUServicer(settings, NvmlDriver),
        add_to_server=add_GPUServiceServicer_to_server,
        # The service also works without a GPU: it reports that, and finds a device that returns.
        lost_device_is_final=False,
        watches=frozenset({"WatchStatus"}),
    ),
    settings,
)
