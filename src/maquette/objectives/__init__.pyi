from .base import Metrics as Metrics, Objective as Objective, Optimization as Optimization
from .dpo import DirectPreferenceOptimization as DirectPreferenceOptimization
from .kto import KahnemanTverskyOptimization as KahnemanTverskyOptimization
from .online_dpo import OnlinePreferenceOptimization as OnlinePreferenceOptimization
from .ppo import ProximalPolicyOptimization as ProximalPolicyOptimization
from .pretrain import Pretraining as Pretraining
from .reward import RewardModelling as RewardModelling
from .sft import SupervisedFineTuning as SupervisedFineTuning
