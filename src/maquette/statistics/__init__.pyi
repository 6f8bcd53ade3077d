from .intervals import (
    Interval as Interval,
    IntervalEstimate as IntervalEstimate,
    MeanOverSeeds as MeanOverSeeds,
    RankInterval as RankInterval,
    interval_score as interval_score,
    mean_over_seeds as mean_over_seeds,
    percentile_interval as percentile_interval,
    rank_intervals as rank_intervals,
    student_interval as student_interval,
)
from .resampling import (
    Estimate as Estimate,
    PairedDifference as PairedDifference,
    bootstrap as bootstrap,
    bootstrap_mean as bootstrap_mean,
    detectable_difference as detectable_difference,
    holm as holm,
    paired_bootstrap as paired_bootstrap,
    resample_counts as resample_counts,
)
