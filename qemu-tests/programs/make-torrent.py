# qemu-tests/programs/make-torrent.py NAME v2|hybrid SEED...: makes NAME.v2.torrent or NAME.hybrid.torrent
# of NAME.iso in the current directory, with web seeds: version 2 alone, or both versions (BEP 52).
import sys

import libtorrent

PIECE = 1 << 18

name, version, seeds = sys.argv[1], sys.argv[2], sys.argv[3:]
files = libtorrent.file_storage()
libtorrent.add_files(files, name + ".iso")
flags = {"v2": libtorrent.create_torrent.v2_only, "hybrid": 0}[version]
torrent = libtorrent.create_torrent(files, PIECE, flags)
for seed in seeds:
    torrent.add_url_seed(seed)
libtorrent.set_piece_hashes(torrent, ".")
with open(f"{name}.{version}.torrent", "wb") as out:
    out.write(libtorrent.bencode(torrent.generate()))
