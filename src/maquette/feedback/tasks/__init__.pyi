from .scoring import gold_reward as gold_reward, is_list as is_list, is_refusal as is_refusal, words_of as words_of
from .demonstrators import Demonstrators as Demonstrators, MIXTURES as MIXTURES, demonstrate as demonstrate
from .exercises import (
    Exercise as Exercise,
    Exercises as Exercises,
    TASKS as TASKS,
    from_facts as from_facts,
    split_of as split_of,
)
