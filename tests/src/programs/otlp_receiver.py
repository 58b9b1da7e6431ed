"""OTLP receiver made of OpenTelemetry's own Python messages: gRPC by grpcio, HTTP by http.server.

Arguments: journal, gRPC port, HTTP port (0: any), mode, and for TLS certificate, key and, if clients
must show one, the roots of theirs. Prints its ports. Each request is a line of JSON in the journal,
which is there before the answer leaves. Modes other than `ok` meet every request with one fault.
"""

import base64
import gzip
import json
import socket
import ssl
import struct
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

JOURNAL, GRPC, HTTP, MODE, *TLS = sys.argv[1:]
lock = threading.Lock()
journal = open(JOURNAL, "a", buffering=1)


def value(it):
    kind = it.WhichOneof("value")
    if kind == "kvlist_value":
        return attributes(it.kvlist_value.values)
    if kind == "array_value":
        return [value(element) for element in it.array_value.values]
    return getattr(it, kind) if kind else None


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def points(metric):
    return getattr(metric, metric.WhichOneof("data")).data_points


def items(request):
    """What a test looks at of each span, log record or data point."""
    if hasattr(request, "resource_spans"):
        for of_resource in request.resource_spans:
            for scope in of_resource.scope_spans:
                for it in scope.spans:
                    id = it.trace_id.hex() + it.span_id.hex()
                    times = [it.start_time_unix_nano, it.end_time_unix_nano]
                    yield {"scope": scope.scope.name, "id": id, "name": it.name, "times": times,
                           "status": it.status.code, "attributes": attributes(it.attributes)}
    elif hasattr(request, "resource_logs"):
        for of_resource in request.resource_logs:
            for scope in of_resource.scope_logs:
                for it in scope.log_records:
                    id = it.trace_id.hex() + it.span_id.hex()
                    yield {"scope": scope.scope.name, "id": id, "name": it.body.string_value,
                           "times": [it.time_unix_nano, it.observed_time_unix_nano],
                           "attributes": attributes(it.attributes)}
    else:
        for of_resource in request.resource_metrics:
            for scope in of_resource.scope_metrics:
                for metric in scope.metrics:
                    for it in points(metric):
                        yield {"scope": scope.scope.name, "name": metric.name,
                               "attributes": attributes(it.attributes)}


def keep(request, protocol, signal, fate):
    held = list(items(request))
    line = {"protocol": protocol, "signal": signal, "fate": fate, "items": held}
    with lock:
        journal.write(json.dumps(line) + "\n")
        journal.flush()
    return len(held)


def partial(response, signal, count):
    """One item of them is refused."""
    field = {"traces": "rejected_spans", "logs": "rejected_log_records"}
    setattr(response.partial_success, field.get(signal, "rejected_data_points"), min(1, count))
    response.partial_success.error_message = "told to refuse one"
    return response


def retry_info(seconds):
    """google.rpc.Status of RESOURCE_EXHAUSTED with a RetryInfo."""
    url = b"type.googleapis.com/google.rpc.RetryInfo"
    info = bytes([0x0A, 2, 0x08, seconds])
    held = bytes([0x0A, len(url)]) + url + bytes([0x12, len(info)]) + info
    return bytes([0x08, 8, 0x1A, len(held)]) + held


def servicer(base, signal, response):
    class Servicer(base):
        def Export(self, request, context):
            faults = {"503": grpc.StatusCode.UNAVAILABLE, "429": grpc.StatusCode.RESOURCE_EXHAUSTED,
                      "400": grpc.StatusCode.INVALID_ARGUMENT}
            if MODE in faults:
                keep(request, "grpc", signal, MODE)
                if MODE == "429":
                    context.set_trailing_metadata([("grpc-status-details-bin", retry_info(1))])
                context.abort(faults[MODE], "told to")
            count = keep(request, "grpc", signal, MODE)
            return partial(response(), signal, count) if MODE == "partial" else response()

    return Servicer()


SIGNALS = {
    "/v1/traces": ("traces", traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
    "/v1/logs": ("logs", logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
    "/v1/metrics": ("metrics", metrics.ExportMetricsServiceRequest,
                    metrics.ExportMetricsServiceResponse),
}


def hex_ids(it):
    """OTLP's JSON has ids in hex, where protobuf's has bytes in base64."""
    if isinstance(it, list):
        return [hex_ids(element) for element in it]
    if isinstance(it, dict):
        ids = ("traceId", "spanId", "parentSpanId")
        return {key: base64.b64encode(bytes.fromhex(inner)).decode() if key in ids else hex_ids(inner)
                for key, inner in it.items()}
    return it


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        signal, request, response = SIGNALS[self.path]
        as_json = self.headers["content-type"] == "application/json"
        request = request()
        if as_json:
            json_format.ParseDict(hex_ids(json.loads(body)), request)
        else:
            request.ParseFromString(body)
        count = keep(request, "http/json" if as_json else "http/protobuf", signal, MODE)
        if MODE in ("400", "429", "503"):
            self.answer(int(MODE), b"", self.headers["content-type"])
            return
        answer = response()
        if MODE == "partial":
            partial(answer, signal, count)
        if as_json:
            self.answer(200, json_format.MessageToJson(answer).encode(), "application/json")
        else:
            self.answer(200, answer.SerializeToString(), "application/x-protobuf")

    def answer(self, status, body, kind):
        self.send_response(status)
        if status in (429, 503):
            self.send_header("retry-after", "1")
        self.send_header("content-type", kind)
        # What is cut off, or stalls, said that it would be longer.
        short = MODE in ("cut", "stalls")
        self.send_header("content-length", str(len(body) + 100 * short))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if MODE == "stalls":
            time.sleep(60)
        self.close_connection |= short


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # One that was killed leaves connections behind.
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, *_):
        pass

    def get_request(self):
        client, peer = super().get_request()
        if TLS:
            # The handshake is the connection's own thread's.
            client = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, peer


def nonsense(port):
    """A server of no protocol: `garbage`, or half an answer; nothing of a request is kept."""
    listener = socket.create_server(("127.0.0.1", port), reuse_port=True, backlog=64)

    def serve():
        while True:
            client, _ = listener.accept()
            with client:
                client.settimeout(5)
                try:
                    asked = client.recv(65536)
                    keep(traces.ExportTraceServiceRequest(), "-", "traces", MODE)
                    if MODE == "garbage":
                        client.sendall(b"\x00\xffSSH-2.0-nonsense\r\n" * 3)
                    elif asked.startswith(b"PRI"):
                        # HTTP/2: settings, then a frame that is cut off.
                        client.sendall(struct.pack(">I", 0)[1:] + b"\x04\x00" + bytes(4) + b"\x00\x01")
                    else:
                        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-le")
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


if MODE in ("garbage", "half"):
    ports = nonsense(int(GRPC)), nonsense(int(HTTP))
else:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    for base, signal, add, response in (
        (traces_grpc.TraceServiceServicer, "traces",
         traces_grpc.add_TraceServiceServicer_to_server, traces.ExportTraceServiceResponse),
        (logs_grpc.LogsServiceServicer, "logs",
         logs_grpc.add_LogsServiceServicer_to_server, logs.ExportLogsServiceResponse),
        (metrics_grpc.MetricsServiceServicer, "metrics",
         metrics_grpc.add_MetricsServiceServicer_to_server, metrics.ExportMetricsServiceResponse),
    ):
        add(servicer(base, signal, response), server)
    http = None
    if TLS:
        certificate, key, roots = (TLS + [None])[:3]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if roots:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(roots)
        read = lambda path: open(path, "rb").read()
        credentials = grpc.ssl_server_credentials(
            [(read(key), read(certificate))],
            root_certificates=read(roots) if roots else None,
            require_client_auth=bool(roots),
        )
        grpc_port = server.add_secure_port("127.0.0.1:" + GRPC, credentials)
    else:
        grpc_port = server.add_insecure_port("127.0.0.1:" + GRPC)
    http = Server(("127.0.0.1", int(HTTP)), Handler)
    server.start()
    threading.Thread(target=http.serve_forever, daemon=True).start()
    ports = grpc_port, http.server_address[1]

print("ports", *ports)
threading.Event().wait()
