from .groups import (
    ParameterGroups as ParameterGroups,
    optimizer_groups as optimizer_groups,
    parameter_groups as parameter_groups,
)
from .optimization import Optimization as Optimization
from .optimizers import Muon as Muon, OptimizerPair as OptimizerPair, build_optimizer as build_optimizer
from .schedules import (
    ConstantSchedule as ConstantSchedule,
    CosineSchedule as CosineSchedule,
    LinearSchedule as LinearSchedule,
    Schedule as Schedule,
    WSDSchedule as WSDSchedule,
    build_schedule as build_schedule,
)
