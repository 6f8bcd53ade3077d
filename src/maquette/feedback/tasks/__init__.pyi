from .answers import gold_reward as gold_reward, is_list as is_list, is_refusal as is_refusal, words_of as words_of
from .demonstrators import Demonstrators as Demonstrators, MIXTURES as MIXTURES, demonstrate as demonstrate
from .exercise import Exercise as Exercise, Task as Task, from_facts as from_facts
from .kinds import TASKS as TASKS
from .supply import Exercises as Exercises, split_of as split_of
