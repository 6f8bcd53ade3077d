from .family import is_scalar as is_scalar
from .folder import (
    FAMILIES as FAMILIES,
    config_of as config_of,
    family_of as family_of,
    fill as fill,
    load as load,
    load_scalar as load_scalar,
    read_config as read_config,
    is_export as is_export,
    require_replaceable as require_replaceable,
    save as save,
)
from .gguf import unpacked as unpacked
from .weights import INDEX as INDEX, weight_files as weight_files
