"""A libtorrent peer: fetches (or has) one file and serves it until it is stopped."""

from __future__ import annotations

import argparse
import time

import libtorrent


def main() -> None:
    """Runs one session."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("torrent")
    parser.add_argument("directory")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--sequential", action="store_true")
    parser.add_argument("--complete", action="store_true", help="the file is there and right")
    args = parser.parse_args()
    session = libtorrent.session(
        {
            "listen_interfaces": args.listen,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            # TCP, as Pantala: the other transport would be measured against its own congestion control.
            "enable_outgoing_utp": False,
            "enable_incoming_utp": False,
            "connection_speed": 200,
            "min_reconnect_time": 1,
            "ssrf_mitigation": False,
        }
    )
    params = libtorrent.add_torrent_params()
    params.ti = libtorrent.torrent_info(args.torrent)
    params.save_path = args.directory
    flags = libtorrent.torrent_flags
    params.flags &= ~(flags.paused | flags.auto_managed)
    if args.sequential:
        params.flags |= flags.sequential_download
    if args.complete:
        params.flags |= flags.seed_mode
    session.add_torrent(params)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
