from .intervals import (
    Interval as Interval,
    bca_interval as bca_interval,
    interval_score as interval_score,
    percentile_interval as percentile_interval,
    student_interval as student_interval,
)
from .intervals import RankInterval as RankInterval, rank_intervals as rank_intervals
from .resampling import (
    Estimate as Estimate,
    PairedDifference as PairedDifference,
    bootstrap as bootstrap,
    bootstrap_mean as bootstrap_mean,
    paired_bootstrap as paired_bootstrap,
    resample_counts as resample_counts,
)
