from .config import effective_settings as effective_settings
from .report import write_report as write_report
from .special import CHAT_TOKENS as CHAT_TOKENS, SPECIAL_TOKENS as SPECIAL_TOKENS
from .stream import StreamDecoder as StreamDecoder
from .tokenizer import Tokenizer as Tokenizer
from .training import train_tokenizer as train_tokenizer
