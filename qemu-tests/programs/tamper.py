# qemu-tests/programs/tamper.py HOW TEXT: reads the event log `log` (TCG PC Client Platform Firmware Profile,
# section 10) in the current directory, spoils it at the event that has TEXT, and writes `tampered`.
import struct
import sys

SHA1, SHA256 = 4, 11
DIGEST_SIZES = {SHA1: 20, SHA256: 32}


def end_of_event(log, at, is_first):
    """The offset behind the event at `at`. The first event has the older form, with one SHA-1 digest."""
    at += 8  # PCR and type
    if is_first:
        at += DIGEST_SIZES[SHA1]
    else:
        (count,) = struct.unpack_from("<I", log, at)
        at += 4
        for _ in range(count):
            (algorithm,) = struct.unpack_from("<H", log, at)
            at += 2 + DIGEST_SIZES[algorithm]
    (length,) = struct.unpack_from("<I", log, at)
    return at + 4 + length


def split(log):
    events, at = [], 0
    while at < len(log):
        end = end_of_event(log, at, at == 0)
        events.append(log[at:end])
        at = end
    return events


how, text = sys.argv[1], sys.argv[2].encode()
with open("log", "rb") as log:
    events = split(log.read())
this = next(number for number, event in enumerate(events) if text in event)

if how == "removed":
    del events[this]
elif how == "added":
    events.insert(this, events[this])
elif how == "swapped":
    events[this], events[this + 1] = events[this + 1], events[this]
elif how == "digest":
    event = bytearray(events[this])
    event[20] ^= 1
    events[this] = bytes(event)
elif how == "text":
    events[this] = events[this].replace(text, text[:-1] + b"y")
else:
    sys.exit(f"tamper.py: {how} is unknown")

with open("tampered", "wb") as tampered:
    tampered.write(b"".join(events))
