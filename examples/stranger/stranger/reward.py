"""A reward and an annotator, as plain functions.

maquette train objective=ppo reward.callable=stranger.reward:short
maquette annotate feedback=callable feedback.callable=stranger.reward:prefer_short
"""


def short(completions):
    """A list of `maquette.objectives.completions.Completion` -> a number for each, the higher the better."""
    return [-float(len(one.answer.split())) for one in completions]


def prefer_short(comparisons):
    """A list of `maquette.feedback.comparison.Comparison` -> 1 where the first is better, 0, 0.5, or None."""
    return [float(len(one.first) < len(one.second)) if one.first != one.second else 0.5 for one in comparisons]
