from .document import (
    Document as Document,
    SPLITS as SPLITS,
    domains as domains,
    read_documents as read_documents,
    write_documents as write_documents,
)
from .pipeline import make_corpus as make_corpus
from .sources import Source as Source, open_source as open_source
