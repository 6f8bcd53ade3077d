"""The chat page's server: the API's answers, in pieces too; errors in its form; blind battles and their files."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from maquette.artifacts import ConfigError, StageError
from maquette.data.conversations import read_preferences
from maquette.evaluation.ratings.arena import read_battles
from maquette.model import LanguageModel, TransformerConfig
from maquette.model.generation import generate
from maquette.model.sampling import Sampling
from maquette.serving.arena import BATTLES, PREFERENCES, Arena
from maquette.serving.endpoint import build_app
from maquette.serving.served import Request, ServedModel
from maquette.text import train_tokenizer
from maquette.text.chat import render
from maquette.text.config import TokenizerConfig

ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def models() -> dict[str, ServedModel]:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    found = {}
    for seed, name in enumerate(("one", "two", "three")):
        shape = TransformerConfig(
            tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=48
        )
        model = LanguageModel(shape, seed=seed).eval()
        with torch.no_grad():
            model.head_weight.mul_(30)
        found[name] = ServedModel(name, model, tokenizer, seed > 0)
    return found


@pytest.fixture
def client(models: dict[str, ServedModel], tmp_path: Path) -> Iterator[TestClient]:
    app = build_app(models, Arena(list(models), tmp_path / "arena", seed=0), Sampling(temperature=1.0), ["here"])
    with TestClient(app, base_url="http://here") as found:
        yield found


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_is_what_generation_gives(client: TestClient, models: dict[str, ServedModel]) -> None:
    body = {"model": "two", "messages": ASK, "temperature": 0.7, "seed": 3, "max_tokens": 9, "n": 2, "logprobs": True}
    said = client.post("/v1/chat/completions", json=body).json()
    two = models["two"]
    prompt = render(two.tokenizer, ASK, open_assistant=True).ids  # type: ignore[arg-type]
    wanted = generate(
        two.model, [prompt] * 2, tokenizer=two.tokenizer, sampling=Sampling(temperature=0.7), max_tokens=9, seed=3
    )
    assert [one["message"]["content"] for one in said["choices"]] == [one.text for one in wanted]
    for choice, one in zip(said["choices"], wanted, strict=True):
        assert [token["id"] for token in choice["logprobs"]["content"]] == list(one.tokens)
        assert choice["finish_reason"] == ("length" if one.finish_reason in ("max_tokens", "context") else "stop")
    assert said["usage"]["prompt_tokens"] == len(prompt) and said["model"] == "two"
    pieces = events(client.post("/v1/chat/completions", json=body | {"stream": True, "n": 1}).text)
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == wanted[0].text
    assert pieces[-1]["choices"][0]["finish_reason"] is not None


def test_a_text_goes_on(client: TestClient) -> None:
    body = {"prompt": "def main(", "max_tokens": 5, "temperature": 0, "stop": "q"}
    whole = client.post("/v1/completions", json=body).json()
    assert whole["object"] == "text_completion" and whole["model"] == "one"  # the first where none is named
    pieces = events(client.post("/v1/completions", json=body | {"stream": True}).text)
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == whole["choices"][0]["text"]
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "four", "messages": ASK}, 404, "no model 'four' here. Served: one, two, three"),
        ({"messages": []}, 400, "no messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, 400, "the role 'judge'"),
        ({"messages": ASK, "temperature": -1}, 400, "temperature=-1"),
        ({"messages": ASK, "n": 99}, 400, "n=99"),
        ({"messages": ASK, "max_tokens": "many"}, 400, "max_tokens"),
        ({"messages": [{"role": "user", "content": "long " * 30}]}, 400, "context holds 48"),
    ],
)
def test_what_is_wrong_is_said_in_the_apis_form(
    client: TestClient, body: dict[str, Any], status: int, said: str
) -> None:
    for stream in (False, True):
        answer = client.post("/v1/chat/completions", json=body | {"stream": stream})
        assert answer.status_code == status and said in answer.json()["error"]["message"]
    assert client.get("/nowhere").json()["error"]["message"] == "Not Found"


def test_the_page_needs_nothing_from_elsewhere_and_strangers_get_nothing(client: TestClient) -> None:
    page = client.get("/").text
    assert "<title>Maquette</title>" in page and "http" not in page.replace('"http-equiv', "")
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    state = client.get("/api/state").json()
    assert [one["assistant"] for one in state["models"]] == [False, True, True] and state["arena"]["votes"] == 0


def fight(client: TestClient, winner: str) -> dict[str, Any]:
    battle = client.post("/arena/battle", json={"messages": ASK}).json()["battle"]
    early = client.post("/arena/vote", json={"battle": battle, "winner": winner})
    assert early.status_code == 400 and "not whole" in early.json()["error"]["message"]
    for side in ("a", "b"):
        told = client.post("/arena/answer", json={"battle": battle, "side": side, "max_tokens": 6}).text
        assert not any(f'"{name}"' in told for name in ("one", "two", "three"))  # blind
    answer = client.post("/arena/vote", json={"battle": battle, "winner": winner, "judge": "Ada"}).json()
    again = client.post("/arena/vote", json={"battle": battle, "winner": winner})
    assert again.status_code == 400 and "no such battle" in again.json()["error"]["message"]
    return dict(answer)


def test_votes_become_battles_and_preferences(client: TestClient, tmp_path: Path) -> None:
    results = [fight(client, winner) for winner in ("a", "b", "tie", "a")]
    assert [result["votes"] for result in results] == [1, 2, 3, 4]
    battles, skipped = read_battles(tmp_path / "arena" / BATTLES)
    assert len(battles) == 4 and not skipped and {one.judge for one in battles} == {"Ada"}
    assert battles[0].winner == results[0]["models"]["a"] and battles[1].winner == results[1]["models"]["b"]
    assert battles[2].tied
    found = read_preferences(tmp_path / "arena" / PREFERENCES)
    rows = [json.loads(line) for line in (tmp_path / "arena" / BATTLES).read_text().splitlines()]
    decided = [row for row in rows if row["winner"] != "tie" and row["answer_a"] != row["answer_b"]]
    assert [one.chosen[0]["content"] for one in found] == [row[f"answer_{row['winner'][-1]}"] for row in decided]
    with pytest.raises(StageError, match="two models"):
        Arena(["one"], tmp_path).begin(ASK)  # type: ignore[arg-type]


def test_two_answers_take_turns(models: dict[str, ServedModel]) -> None:
    """Each is what it would have been alone, and a long one does not keep a short one waiting."""
    one = models["one"]
    long, short = Request(text="a", max_tokens=40, seed=1), Request(text="b", max_tokens=2, seed=2)
    alone = ["".join(piece.text for piece in one.answer(asked)) for asked in (long, short)]
    slow = one.answer(long)
    begun = [next(slow)]
    quick: list[str] = []
    thread = threading.Thread(target=lambda: quick.append("".join(piece.text for piece in one.answer(short))))
    thread.start()
    thread.join(30)
    assert quick == [alone[1]]  # while the long one is still under way
    assert "".join(piece.text for piece in [*begun, *slow]) == alone[0]
    with pytest.raises(ConfigError, match="n=0"):
        one.answer(Request(text="a", count=0))
