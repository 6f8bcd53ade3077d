"""Archives and texts made by hand for the tests."""

import gzip

SENTENCES = (
    "The committee met to talk of the plan, and nobody was surprised.",
    "Ann had brought maps that showed where rivers used to run.",
    "It took most of the morning before they agreed on a route.",
    "Later that week a storm came with rain from the west.",
    "Farmers near the border have been waiting for such weather since June.",
    "Their children know every path between these hills and the sea.",
    "Nobody could say whether bridges would hold until spring.",
    "So the engineers were asked to be ready with timber and rope.",
)
PROSE = "\n\n".join(SENTENCES)
"""Ordinary text: it breaks no rule."""


def record(body: bytes, url: str = "http://site.example/a", headers: str = "", kind: str = "text/html") -> bytes:
    """A WARC record with a server's answer."""
    content = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{headers}\r\n".encode() + body
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content + b"\r\n\r\n"


def page(number: int) -> bytes:
    """A page that says which one it is."""
    return (
        f"<html><body><p>This is page number {number} of the crawl, and it has a sentence.</p></body></html>".encode()
    )


def archive(count: int, *, compressed: bool = False) -> list[bytes]:
    """`count` records, each a gzip member where compressed."""
    records = [record(page(number), f"http://site.example/{number}") for number in range(count)]
    return [gzip.compress(one, 6, mtime=0) for one in records] if compressed else records
