"""gRPC server of raw bytes. Logs: the client's port, the method and the status of each call."""

import re
import threading
import time
from concurrent import futures

import grpc

lock = threading.Lock()


def log(context, method, code):
    port = re.search(r":(\d+)$", context.peer())[1]
    with lock:
        print("log", port, method, code.value[0] if code else "-")


def handler(method):
    """The call of this name: echoes, counts, fails or sleeps."""

    def unary(request, context):
        if method.endswith("/Fail"):
            log(context, method, grpc.StatusCode.NOT_FOUND)
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: caf\u00e9")
        if method.endswith("/Sleep"):
            # The client gives up, and no status is sent.
            while context.is_active():
                time.sleep(0.01)
            log(context, method, None)
            return b""
        log(context, method, grpc.StatusCode.OK)
        return request

    def many(request, context):
        for number in range(int(request)):
            yield b"m" * 1000 * number
        log(context, method, grpc.StatusCode.OK)

    def collect(requests, context):
        total = sum(len(request) for request in requests)
        log(context, method, grpc.StatusCode.OK)
        return str(total).encode()

    def both(requests, context):
        yield from requests
        log(context, method, grpc.StatusCode.OK)

    kinds = {
        "/Many": grpc.unary_stream_rpc_method_handler(many),
        "/Collect": grpc.stream_unary_rpc_method_handler(collect),
        "/Both": grpc.stream_stream_rpc_method_handler(both),
    }
    for end, kind in kinds.items():
        if method.endswith(end):
            return kind
    return grpc.unary_unary_rpc_method_handler(unary)


class All(grpc.GenericRpcHandler):
    def service(self, details):
        return handler(details.method)


server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[All()])
print("port", server.add_insecure_port("127.0.0.1:0"))
server.start()
server.wait_for_termination()
