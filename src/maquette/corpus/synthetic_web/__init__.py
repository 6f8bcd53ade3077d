"""The synthetic web: a crawl that is generated, not downloaded, with faults whose truth is known."""
