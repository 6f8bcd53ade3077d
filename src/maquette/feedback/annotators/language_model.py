"""A language model as a judge: asked which of two completions is better, in both orders, each question once.

Dubois et al. 2023 (AlpacaFarm) and Zheng et al. 2023 ("Judging LLM-as-a-judge") for the method: a judge that is swayed
by the order contradicts itself when it is turned round, and such a pair is a tie. By probability (AlpacaEval 2; Dubois
et al. 2024) its vote is how likely it names A rather than B, so that a judge in doubt says so.
"""

import dataclasses
import json
import re
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from maquette.artifacts.files import digest
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import CHECKSUM, check_seal, reading, sealed
from maquette.feedback.chat_models import ChatModel, Reply
from maquette.feedback.comparison import Comparison, Judgement
from maquette.text.chat import Message

SYSTEM = (
    "You compare two answers to an instruction. Judge which answer follows the instruction better: correct, complete, "
    "without needless words. Neither order nor length is a merit. Reply with one letter: A or B."
)
QUESTION = "Instruction:\n{instruction}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\nWhich answer is better, A or B?"

_LETTER = re.compile(r"(?<![A-Za-z])([AB])(?![A-Za-z])")


@dataclasses.dataclass
class JudgeCosts:
    """What judging has taken. `asked` questions went to the judge, `cached` were answered before; `nonsense` replies
    named neither completion, `contradictions` are pairs judged otherwise when turned round. Prices in dollars per
    million tokens; `dollars` counts what was asked now, `dollars_in_all` also what was paid for cached replies."""

    input_price: float = 0.0
    output_price: float = 0.0
    asked: int = 0
    cached: int = 0
    nonsense: int = 0
    contradictions: int = 0
    labels: int = 0
    dollars: float = 0.0
    dollars_in_all: float = 0.0

    def count(self, reply: Reply, *, cached: bool) -> None:
        price = reply.dollars(self.input_price, self.output_price)
        self.dollars_in_all += price
        if cached:
            self.cached += 1
        else:
            self.asked += 1
            self.dollars += price

    @property
    def dollars_per_thousand(self) -> float:
        """Dollars for 1,000 labels, had none been cached."""
        return 1000 * self.dollars_in_all / self.labels if self.labels else 0.0


_MOVE = "It keeps what judges have replied: move it away, and they are asked again."


class AnswerCache:
    """Questions and replies of before, in one SQLite file: nobody pays twice, and nothing that was judged is lost.

    Each reply is on disk before the next is asked for. Safe for threads and for several processes. (The package
    diskcache does the same, and unpickles what it reads.)"""

    def __init__(self, path: Path | str) -> None:
        """Raises `StageError` where the file can't be opened or is not a cache."""
        self.path = Path(path)
        with reading(self.path, hint=_MOVE):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(self.path, check_same_thread=False, timeout=60)
            self._store.execute("create table if not exists answers (question text primary key, answer text not null)")
            self._store.commit()
        self._lock = threading.Lock()

    def get(self, question: Any) -> dict[str, Any] | None:
        """What was answered to this question (plain values), if it was asked. Raises `StageError` where the file was
        changed."""
        with self._lock, reading(self.path, hint=_MOVE):
            row = self._store.execute("select answer from answers where question = ?", (digest(question),)).fetchone()
            if row is None:
                return None
            answer: dict[str, Any] = json.loads(row[0])
            if CHECKSUM in answer:  # earlier versions wrote none, and nobody pays twice
                check_seal(answer, self.path, hint=_MOVE)
                del answer[CHECKSUM]
            return answer

    def put(self, question: Any, answer: dict[str, Any]) -> None:
        """Keeps a reply; it is on disk when this returns."""
        with self._lock, reading(self.path, hint=_MOVE):
            row = digest(question), json.dumps(sealed(answer))
            self._store.execute("insert or replace into answers values (?, ?)", row)
            self._store.commit()

    def close(self) -> None:
        self._store.close()


class LanguageModelAnnotator:
    """Asks a judge about every pair, in both orders by default."""

    def __init__(
        self,
        judge: ChatModel,
        *,
        cache: AnswerCache | None = None,
        both_orders: bool = True,
        by_probability: bool = False,
        workers: int = 4,
        input_price: float = 0.0,
        output_price: float = 0.0,
    ) -> None:
        self.name = f"language_model:{judge.name}{', by probability' if by_probability else ''}"
        self.by_probability = by_probability
        self.judge_model, self.cache, self.both_orders, self.workers = judge, cache, both_orders, workers
        self.costs = JudgeCosts(input_price, output_price)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """Raises `StageError` where the judge stops answering; what it has answered until then is in the cache."""
        shown = [turned for one in comparisons for turned in self._orders(one)]
        votes = self._votes(shown)
        orders = 2 if self.both_orders else 1
        judgements = []
        for place in range(len(comparisons)):
            mine = votes[place * orders : (place + 1) * orders]
            firsts = [vote if turn == 0 else 1 - vote for turn, vote in enumerate(mine) if vote is not None]
            if len(firsts) == 2 and (firsts[0] > 0.5) != (firsts[1] > 0.5):
                self.costs.contradictions += 1
            judgements.append(Judgement(sum(firsts) / len(firsts) if firsts else None))
        self.costs.labels += sum(one.preference is not None for one in judgements)
        return judgements

    def _orders(self, one: Comparison) -> list[Comparison]:
        return [one, one.swapped()] if self.both_orders else [one]

    def _votes(self, shown: Sequence[Comparison]) -> list[float | None]:
        """1 where the completion shown first won, 0 where the second did, None for nonsense; by probability a number
        between them."""
        votes: list[float | None] = [None] * len(shown)
        replies: dict[int, Reply] = {}
        waiting = []
        for place, one in enumerate(shown):
            known = None if self.cache is None else self.cache.get(self._question(one))
            if known is None:
                waiting.append(place)
            else:
                replies[place] = Reply(**known)
                self.costs.count(replies[place], cached=True)
        with (
            progress(f"asking {self.judge_model.name}", len(waiting), unit="questions") as advance,
            ThreadPoolExecutor(self.workers) as pool,
        ):
            asked = {pool.submit(self._ask, shown[place]): place for place in waiting}
            try:
                for done in as_completed(asked):
                    reply = replies[asked[done]] = done.result()
                    self.costs.count(reply, cached=False)
                    advance(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for place, reply in replies.items():
            votes[place] = reply.probability if self.by_probability else read_vote(reply.text)
            self.costs.nonsense += votes[place] is None
        return votes

    def _ask(self, one: Comparison) -> Reply:
        messages = judge_messages(one)
        reply = self.judge_model.weigh(messages, ("A", "B")) if self.by_probability else self.judge_model.ask(messages)
        if self.cache is not None:
            self.cache.put(self._question(one), dataclasses.asdict(reply))
        return reply

    def _question(self, one: Comparison) -> dict[str, object]:
        question: dict[str, object] = {"judge": self.judge_model.settings, "messages": judge_messages(one)}
        return question | ({"verdict": "log_probability"} if self.by_probability else {})


def judge_messages(one: Comparison) -> list[Message]:
    """The conversation that asks which completion is better."""
    turns = "\n".join(message["content"] for message in one.messages)
    question = QUESTION.format(instruction=turns, first=one.first, second=one.second)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def read_vote(reply: str) -> float | None:
    """1 for A, 0 for B; None where a reply names neither, or names both and so decides nothing."""
    letters = set(_LETTER.findall(reply))
    if len(letters) != 1:
        # "B is better than A": a reply that begins with its verdict has decided.
        opening = re.match(r"\W*([AB])\b", reply)
        if opening is None:
            return None
        letters = {opening[1]}
    return 1.0 if letters == {"A"} else 0.0
