from .architecture import (
    CustomConfig as CustomConfig,
    LSTMConfig as LSTMConfig,
    MixtureOfExpertsConfig as MixtureOfExpertsConfig,
    TransformerConfig as TransformerConfig,
)
from .cache import (
    Cache as Cache,
    KeyValueCache as KeyValueCache,
    RecurrentCache as RecurrentCache,
    new_cache as new_cache,
)
from .config import ModelConfig as ModelConfig
from .core_config import (
    CoreConfig as CoreConfig,
    FlopCount as FlopCount,
    ParameterCount as ParameterCount,
    count_parameters as count_parameters,
    forward_flops as forward_flops,
    kaplan_compute as kaplan_compute,
    training_flops as training_flops,
)
from .generation import Generation as Generation, generate as generate, stream as stream
from .heads import Core as Core, LanguageModel as LanguageModel, ScalarModel as ScalarModel, build_core as build_core
from .initialization import initialize as initialize
from .likelihoods import next_token_loss as next_token_loss, token_log_probs as token_log_probs
from .loading import find_checkpoint as find_checkpoint, load_checkpoint as load_checkpoint
from .lstm import LSTM as LSTM
from .sampling import Sampling as Sampling
from .scoring import score_sentences as score_sentences
from .transformer import Transformer as Transformer
