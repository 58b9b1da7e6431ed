# HTTP server for bodies: POST sends back what was sent; GET /chunked, /gzip and /binary say so.
# Logs `log METHOD PATH <what was read, in hex> <what was written, in hex>`.
import gzip
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def told(self, read, written):
        line = ["log", self.command, self.path, read.hex() or "-", written.hex() or "-"]
        # In one piece: requests are answered by threads.
        print(" ".join(line) + "\n", end="", flush=True)

    def whole(self, read, body, *headers):
        self.send_response(200)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.told(read, body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.whole(body, body, ("Content-Type", self.headers.get("Content-Type", "")))

    def do_GET(self):
        if self.path == "/chunked":
            parts = [b"one ", b"t\xc3\xbcwo ", b"three" * 50]
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in parts:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
            self.told(b"", b"".join(parts))
        elif self.path == "/gzip":
            self.whole(b"", gzip.compress(b"hello " * 20), ("Content-Encoding", "gzip"))
        elif self.path == "/binary":
            self.whole(b"", bytes(range(256)))
        else:
            self.whole(b"", b"plain", ("Set-Cookie", "a=hidden"), ("Set-Cookie", "b=hidden"))


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
