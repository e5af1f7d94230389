"""The report service of examples/proto, guarded by tokend.

Environment: TOKEND_ADDRESS (http://host:port, or https://), TOKEND_SECRET_FILE (the secret of a token with
`tokend:verify`) and REPORTS_LISTEN (host:port).
"""

import collections
import logging
import os
import pathlib
import sys
from concurrent import futures

import grpc

# What `python3 -m grpc_tools.protoc` has made of the contracts.
sys.path.insert(0, str(pathlib.Path(__file__).parent / "gen"))

from reports.v1 import report_service_pb2, report_service_pb2_grpc  # noqa: E402
from tokend.v1 import token_service_pb2_grpc  # noqa: E402

from guard import Guard  # noqa: E402

SCOPES = {
    "/reports.v1.ReportService/GetReport": ["reports:read"],
    "/reports.v1.ReportService/DeleteReport": ["reports:write"],
}


class Reports(report_service_pb2_grpc.ReportServiceServicer):
    def GetReport(self, request, context):
        return report_service_pb2.GetReportResponse(
            text=f"report {request.report_id}",
            user_id=context.token.user_id,
            organization_id=context.token.organization_id,
        )

    def DeleteReport(self, request, context):
        return report_service_pb2.DeleteReportResponse()

    def ArchiveReport(self, request, context):
        return report_service_pb2.ArchiveReportResponse()


Details = collections.namedtuple("Details", "method timeout metadata credentials wait_for_ready compression")


class Ours(grpc.UnaryUnaryClientInterceptor):
    """Presents this service's own secret."""

    def __init__(self, secret):
        self._authorization = ("authorization", f"Bearer {secret}")

    def intercept_unary_unary(self, continuation, details, request):
        metadata = [*(details.metadata or ()), self._authorization]
        mine = Details(details.method, details.timeout, metadata, details.credentials, None, None)
        return continuation(mine, request)


# ../service-config.json: calls go round all replicas that are healthy. While none is, Verify waits for one, and while
# one cannot tell, it is asked again; both end with the call's own deadline.
SERVICE_CONFIG = """
{
  "loadBalancingConfig": [{ "round_robin": {} }],
  "healthCheckConfig": { "serviceName": "tokend.v1.TokenService" },
  "methodConfig": [
    {
      "name": [{ "service": "tokend.v1.TokenService", "method": "Verify" }],
      "waitForReady": true,
      "retryPolicy": {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]
      }
    }
  ]
}
"""

# Pings find a connection that has gone silent, and a lost one is tried again within a second.
CHANNEL = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.service_config", SERVICE_CONFIG),
]


def connect():
    """Connects to tokend as a caller of its own."""
    scheme, _, target = os.environ["TOKEND_ADDRESS"].partition("://")
    secret = pathlib.Path(os.environ["TOKEND_SECRET_FILE"]).read_text(encoding="ascii").strip()
    if scheme == "https":
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), CHANNEL)
    else:
        channel = grpc.insecure_channel(target, CHANNEL)
    return token_service_pb2_grpc.TokenServiceStub(grpc.intercept_channel(channel, Ours(secret)))


def main():
    logging.basicConfig()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), interceptors=[Guard(connect(), SCOPES)])
    report_service_pb2_grpc.add_ReportServiceServicer_to_server(Reports(), server)
    server.add_insecure_port(os.environ["REPORTS_LISTEN"])
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
