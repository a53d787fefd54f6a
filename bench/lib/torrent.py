"""A .torrent file and a tracker, both as small as they can be, for the BitTorrent clients to compare with."""

from __future__ import annotations

import hashlib
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from lib.units import KIB

PIECE = 256 * KIB
PORT = 6969


def bencode(value: object) -> bytes:
    """BitTorrent's encoding of ints, byte and text strings, lists and dicts."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    if isinstance(value, dict):
        return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"
    raise TypeError(f"{type(value).__name__} has no bencoding")


def make(content: Path, tracker: str, webseed: str | None) -> bytes:
    """The .torrent of one file."""
    data = content.read_bytes()
    pieces = b"".join(hashlib.sha1(data[at : at + PIECE]).digest() for at in range(0, len(data), PIECE))
    info = {"length": len(data), "name": content.name, "piece length": PIECE, "pieces": pieces}
    torrent: dict[str, object] = {"announce": tracker, "info": info}
    if webseed:
        torrent["url-list"] = webseed
    return bencode(torrent)


class _Tracker(BaseHTTPRequestHandler):
    """Tells each announcer of a torrent who announced that before it."""

    swarms: dict[bytes, dict[tuple[str, int], bytes]] = {}

    def do_GET(self) -> None:
        query = urlsplit(self.path).query
        port = int(parse_qs(query)["port"][0])
        binary = dict(part.split("=", 1) for part in query.split("&") if part.startswith(("peer_id=", "info_hash=")))
        swarm = self.swarms.setdefault(unquote_to_bytes(binary["info_hash"]), {})
        me = (self.client_address[0], port)
        others = [
            {"ip": address, "port": its_port, "peer id": its_id}
            for (address, its_port), its_id in list(swarm.items())
            if (address, its_port) != me
        ]
        swarm[me] = unquote_to_bytes(binary["peer_id"])
        body = bencode({"interval": 5, "min interval": 1, "peers": others})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def main() -> None:
    """Runs the tracker on the address given, until it is stopped."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer((sys.argv[1], PORT), _Tracker) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
