"""HTTPS server: certificate, key, milliseconds to think before each answer."""

import http.server
import ssl
import sys
import time

certificate, key, milliseconds = sys.argv[1:]


class Slow(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(int(milliseconds) / 1000)
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 1000)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("port", server.server_port)
server.serve_forever()
