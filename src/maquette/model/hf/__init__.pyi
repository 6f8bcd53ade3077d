from .folder import (
    FAMILIES as FAMILIES,
    family_of as family_of,
    fill as fill,
    load as load,
    read_config as read_config,
    is_export as is_export,
    require_replaceable as require_replaceable,
    save as save,
)
from .scalar import is_scalar as is_scalar, load_scalar as load_scalar, save_scalar as save_scalar
from .weights import weight_files as weight_files
