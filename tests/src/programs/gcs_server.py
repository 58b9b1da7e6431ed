# What Google Cloud Storage's XML API is to one who puts objects: each is asked for by a token that its
# service account has signed (RS256, checked by openssl). Arguments: the account's public key, then how
# to meet the first requests (a status, or `bare`: 200 without an ETag); the last holds for all
# that follow. Logs `log JSON`, a line for each request.
import base64
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

KEY, FATES = sys.argv[1], sys.argv[2:]
lock = threading.Lock()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def token(authorization):
    """Head and claims of a token, and whether it is signed."""
    kind, _, jwt = (authorization or "").partition(" ")
    parts = jwt.split(".")
    if kind != "Bearer" or len(parts) != 3:
        return {"signed": False}
    with tempfile.NamedTemporaryFile() as signature:
        signature.write(decoded(parts[2]))
        signature.flush()
        check = ["openssl", "dgst", "-sha256", "-verify", KEY, "-signature", signature.name]
        signed = subprocess.run(check, input=".".join(parts[:2]).encode(), capture_output=True)
    head, claims = (json.loads(decoded(part)) for part in parts[:2])
    return {"signed": signed.returncode == 0, "head": head, "claims": claims}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with lock:
            fate = FATES.pop(0) if len(FATES) > 1 else FATES[0]
        line = {"method": self.command, "path": unquote(self.path), "fate": fate, "token":
                token(self.headers.get("Authorization")), "type": self.headers.get("Content-Type"),
                "sha256": hashlib.sha256(body).hexdigest()}
        # In one piece: requests are answered by threads.
        print(f"log {json.dumps(line)}\n", end="", flush=True)
        status = 200 if fate == "bare" else int(fate)
        self.send_response(status)
        if status == 200 and fate != "bare":
            self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
            self.send_header("x-goog-generation", "1")
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        error = b"" if status == 200 else b"<Error><Code>Told</Code><Message>told to</Message></Error>"
        self.send_header("Content-Length", str(len(error)))
        self.end_headers()
        self.wfile.write(error)

    do_GET = do_PUT = do_POST = do_DELETE = answer


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
