from .config_file import (
    FAMILIES as FAMILIES,
    config_of as config_of,
    family_of as family_of,
    limits as limits,
    read_config as read_config,
)
from .family import is_scalar as is_scalar
from .folder import (
    fill as fill,
    load as load,
    load_scalar as load_scalar,
    is_export as is_export,
    read_regions as read_regions,
    require_replaceable as require_replaceable,
    save as save,
)
from .gguf import unpacked as unpacked
from .source import (
    is_gguf as is_gguf,
    load_source as load_source,
    not_followed as not_followed,
    source_digests as source_digests,
)
from .weights import INDEX as INDEX, weight_files as weight_files
