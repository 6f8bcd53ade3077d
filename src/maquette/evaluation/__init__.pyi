from .baselines import (
    BaselineScore as BaselineScore,
    bits_per_byte as bits_per_byte,
    score_baselines as score_baselines,
)
from .judges import (
    Agreement as Agreement,
    agreement as agreement,
    rank_agreement as rank_agreement,
)
from .length_control import WinRate as WinRate, length_controlled_win_rate as length_controlled_win_rate
from .pairwise import (
    PairwiseResult as PairwiseResult,
    battles as battles,
    compare_completions as compare_completions,
)
from .contamination import ContaminationTest as ContaminationTest, contamination_test as contamination_test
from .arena import style_covariates as style_covariates
from .ratings import (
    Ratings as Ratings,
    bradley_terry_ratings as bradley_terry_ratings,
    topic_shares as topic_shares,
    topic_weights as topic_weights,
)
from .leaderboard import ModelScore as ModelScore, score_models as score_models
