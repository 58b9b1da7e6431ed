# moto's server, with the bucket argv[1] from its first moment on.
import sys

from moto.backends import get_backend
from moto.server import main

get_backend("s3")["123456789012"]["aws"].create_bucket(sys.argv[1], "us-east-1")
main(sys.argv[2:])
