"""Crawl archives (WARC and WET): cut into records, read as pages, turned into text."""
