"""gRPC client of raw bytes: one call of each kind, one after the other, on one connection."""

import sys
import time

import grpc

with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    service = "/tap.test.v1.Calls/"
    assert channel.unary_unary(service + "Echo")(b"hello") == b"hello"
    assert len(channel.unary_unary(service + "Echo")(b"e" * 100_000)) == 100_000
    try:
        channel.unary_unary(service + "Fail")(b"x")
        raise SystemExit("it did not fail")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    call = channel.unary_unary(service + "Sleep").future(b"x")
    time.sleep(0.1)
    assert call.cancel()
    assert sum(map(len, channel.unary_stream(service + "Many")(b"5"))) == 10_000
    assert channel.stream_unary(service + "Collect")(iter([b"a" * 10, b"b" * 5])) == b"15"
    pieces = [b"one", b"", b"three" * 1000]
    assert list(channel.stream_stream(service + "Both")(iter(pieces))) == pieces
    assert channel.unary_unary(service + "Echo")(b"") == b""
print("done")
