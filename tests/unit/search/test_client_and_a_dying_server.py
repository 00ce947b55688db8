"""A server that is killed while many ask it."""

import asyncio
import sys

from seg_common.errors import InfraError
from seg_research.search.client import SearchClient

DYING_SERVER = """

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
BODY = b'{"hits": [], "took_ms": 1}'
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


async def test_a_server_killed_in_the_middle_is_an_infra_error_within_the_deadline():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DYING_SERVER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    num_answered = 0
    try:
        async with SearchClient(f"http://127.0.0.1:{port}", deadline_s=5) as client:

            async def hammer():
                nonlocal num_answered
                while True:
                    await client.search("who", "text", 1)
                    num_answered += 1
                    if num_answered == 50:
                        process.kill()

            # Far above the deadline: a busy machine may be slow, a client must not wait for ever.
            async with asyncio.timeout(300):
                errors = await asyncio.gather(*(hammer() for _ in range(8)), return_exceptions=True)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert num_answered >= 50
    assert [type(error) for error in errors] == [InfraError] * 8
