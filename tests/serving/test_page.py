"""The chat page in a browser, with a server of its own script: it shows an answer, and a correction replaces it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from maquette.serving.page import page_text

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SERVER = """
const say = (value) => new Response(JSON.stringify(value));
window.fetch = async (address, options) => {
  if (address === "/api/state") return say({
    models: [{ id: "one", assistant: true, context: 128, parameters: 226000 }], arena: null, corrections: { kept: 0 },
    defaults: { temperature: 0.8, top_p: 0.95 },
  });
  const body = JSON.parse(options.body);
  if (address === "/api/next") {
    const asked = body.ids || [0, ...[...(body.text || body.messages[0].content)].map((one) => one.codePointAt(0))];
    const place = body.place || asked.length, drawn = body.temperature < 0.5 ? 1 : 0.5;
    const spelt = (id) => id ? String.fromCodePoint(id) : "<|document|>";
    const token = (id) => ({ id, text: spelt(id), shown: spelt(id), special: !id });
    const read = (id, index) => ({ ...token(id), surprise: index ? 3 : null, entropy: index ? 4 : null });
    return say({
      tokens: asked.map(read), place, before: "", entropy: 2, others: 0.1,
      truncations: [{ setting: "greedy", tokens: 1, probability: 0.5, entropy: 0 }],
      tree: body.beams ? [{ ids: [65], shown: "A", probability: 0.5, whole: null, best: true, branches: [
        { ids: [66, 67], shown: "B<i>", probability: 0.4, whole: 0.2, best: true, branches: [] },
        { ids: [68], shown: "D", probability: 0.1, whole: 0.05, best: false, branches: [] }] }] : [],
      candidates: [{ ...token(88), probability: 0.5, drawn }, { ...token(60), probability: 0.4, drawn: 1 - drawn }],
    });
  }
  if (address === "/corrections") { window.sent = body; return say({ kept: 1 }); }
  (window.prompts = window.prompts || []).push(body);
  const words = window.spoken || ["It is", " Bergen."];
  const pieces = words.map((text, index) => ({ choices: [
    { text, delta: { content: text }, finish_reason: null,
      logprobs: { content: [{ logprob: -1, id: 100 + index }] } } ] }));
  return new Response(pieces.map((piece) => `data: ${JSON.stringify(piece)}\\n\\n`).join("") + "data: [DONE]\\n\\n");
};
"""

ACTS = """
const button = (text) => [...document.querySelectorAll("button")].find((one) => one.textContent === text);
const until = async (found) => { while (!found()) await new Promise((go) => setTimeout(go, 5)); return found(); };
"""

PERSON = """
(async () => {
  await until(() => at("about").textContent);
  at("words").value = "What is the capital of Norway?";
  at("ask").requestSubmit();
  (await until(() => button("correct"))).click();
  document.querySelector(".correction").value = "It is Oslo.";
  button("keep as an instruction").click();
  await until(() => document.querySelector(".kept"));
  document.title = JSON.stringify(window.sent);
})();
"""


def visited(folder: Path, person: str) -> str:
    """The document after a person's visit."""
    page = page_text().replace("<script>", f"<script>{SERVER}</script>\n<script>", 1)
    (folder / "page.html").write_text(page.replace("</body>", f"<script>{ACTS}{person}</script>\n</body>"))
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=20000", "--dump-dom", (folder / "page.html").as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_an_answer_is_shown_and_corrected(tmp_path: Path) -> None:
    shown = visited(tmp_path, PERSON)
    assert 'role="alert"' not in shown  # nothing that the script complains of
    [answer] = re.findall(
        r'<div class="turn assistant corrected">.*?<div class="message">(.*?)</div>', shown, re.DOTALL
    )
    assert answer == "<p>It is Oslo.</p>" and "Kept: 1 correction so far." in shown
    [sent] = re.findall(r"<title>(.*?)</title>", shown)
    assert '"answer":"It is Oslo."' in sent and '"original":"It is Bergen."' in sent
    assert '"messages":[{"role":"user","content":"What is the capital of Norway?"}]' in sent


LOOKER = """
(async () => {
  await until(() => at("about").textContent);
  at("tab-tokens").click();
  await until(() => seen);
  at("token-words").value = "ab<i>";
  at("look").requestSubmit();
  await until(() => seen.tokens.length === 6);
  const chosen = () => at("token-text").querySelector("[aria-selected=true]");
  chosen().focus();
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  press("Home");
  await until(() => seen.place === 1);
  press("ArrowRight");
  await until(() => seen.place === 2);
  const first = () => document.querySelector(".candidate").getAttribute("aria-label");
  const label = chosen().getAttribute("aria-label"), before = first();
  at("temperature").value = 0.1;
  at("temperature").dispatchEvent(new Event("input"));
  await until(() => first() !== before);
  const after = first();
  document.querySelectorAll(".candidate")[1].click();
  await until(() => seen.tokens.length === 3);
  const branch = seen.tokens.map((one) => one.id);
  at("write-on").click();
  await until(() => seen.tokens.length === 5);
  const written = window.prompts[0].prompt;
  at("undo").click();
  await until(() => seen.tokens.length === 3);
  at("undo").click();
  await until(() => seen.tokens.length === 6);
  const place = seen.place;
  at("beams").value = "2";
  at("beams").dispatchEvent(new Event("change"));
  const nodes = () => [...document.querySelectorAll(".branch")];
  await until(() => nodes().length === 3);
  nodes()[0].focus();
  press("ArrowDown");
  const second = document.activeElement.getAttribute("aria-label"), tree = nodes().map((one) => one.textContent);
  document.activeElement.click();
  await until(() => seen.tokens.length === 5 && seen.place === 5);
  const grown = seen.tokens.map((one) => one.id);
  document.title = JSON.stringify({ label, before, after, branch, written, place, second, tree, grown });
})();
"""


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_the_next_token_is_looked_at_and_another_branch_taken(tmp_path: Path) -> None:
    shown = visited(tmp_path, LOOKER)
    assert 'role="alert"' not in shown and "<i>" not in shown.partition("<script>")[0]
    [title] = re.findall(r"<title>(.*?)</title>", shown, re.DOTALL)
    done = json.loads(html.unescape(title))
    assert done["label"] == "b, surprise 3.0 bits, entropy before it 4.0 bits"
    assert done["before"] == "X: 50.0%, drawn with 50.0%" and done["after"] == "X: 50.0%, drawn with 100.0%"
    assert done["branch"] == done["written"] == [0, ord("a"), 60] and done["place"] == 2
    assert done["tree"] == ["A50.0%", "B<i>40.0%✓ likeliest, 20.0% in all", "D10.0%5.0% in all"]
    assert done["second"] == "B<i>: 40.0%, 20.0% in all, on the likeliest"
    assert done["grown"] == [0, ord("a"), 65, 66, 67]


TALKER = """
window.spoken = ["# A list\\n\\n- **one** <img src=x onerror=alert(1)>\\n- `two`", "\\n\\n```\\n<b>code</b>\\n```"];
(async () => {
  await until(() => at("about").textContent);
  at("words").value = "first";
  at("ask").requestSubmit();
  await until(() => button("again"));
  button("edit").click();
  const edited = at("words").value;
  at("words").value = "second";
  at("ask").requestSubmit();
  await until(() => button("again"));
  const half = { ...conversation, id: "half", at: 1, turns: [{ role: "user", content: "broken off" },
    { role: "assistant", content: "Half", ids: [7], open: true, settings: { max_tokens: 9 } }] };
  localStorage.setItem(KEPT + "half", JSON.stringify(half));
  list();
  window.spoken = [" and half"];
  button("broken off").click();
  await until(() => conversation.id === "half" && !conversation.turns[1].open && button("again"));
  const stored = conversations();
  document.title = JSON.stringify({ edited, stored: stored.map((one) => one.turns.map((turn) => turn.content)),
    prompt: window.prompts[2].prompt, most: window.prompts[2].max_tokens });
  button("second").click();
})();
"""


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_conversations_are_kept_resumed_and_shown_safely(tmp_path: Path) -> None:
    shown = visited(tmp_path, TALKER)
    [title] = re.findall(r"<title>(.*?)</title>", shown, re.DOTALL)
    done = json.loads(html.unescape(title))
    assert done["edited"] == "first" and done["stored"][0] == ["broken off", "Half and half"]
    assert done["stored"][1][0] == "second" and len(done["stored"]) == 2
    assert done["prompt"] == [0, *map(ord, "broken off"), 7] and done["most"] == 8
    talk = shown.partition('id="talk"')[2].partition("<form")[0]
    assert "<h4>A list</h4><ul><li><strong>one</strong> &lt;img src=x onerror=alert(1)&gt;</li>" in talk
    assert "<code>two</code>" in talk and "<code>&lt;b&gt;code&lt;/b&gt;</code></pre>" in talk
    assert "<img" not in talk and 'role="alert"' not in shown


VOTER = """
const served = window.fetch;
window.fetch = async (address, options) => {
  const reply = (value) => new Response(JSON.stringify(value));
  if (address === "/arena/battle") return reply({ battle: "b1" });
  if (address === "/arena/answer") return new Response('data: {"text": "**blue** <b>"}\\n\\ndata: [DONE]\\n\\n');
  if (address === "/arena/vote") {
    window.vote = JSON.parse(options.body);
    return reply({ votes: 1, models: { a: "one", b: "two" } });
  }
  const row = { name: "one", rating: 1010, interval: [980, 1040], battles: 1 };
  if (address === "/arena/ratings") return reply({ models: [row], why: "" });
  return served(address, options);
};
(async () => {
  await until(() => at("about").textContent);
  open("arena");
  at("ratings").open = true;
  at("challenge-words").value = "What colour is it?";
  at("challenge").requestSubmit();
  await until(() => document.querySelector(".verdict button"));
  const focus = document.activeElement.getAttribute("aria-label"), held = sessionStorage.getItem(ASKED);
  button("Both are good").click();
  await until(() => document.querySelector(".verdict .note") && at("rated").textContent.includes("980 to 1040"));
  const titles = [...document.querySelectorAll(".side h2")].map((one) => one.textContent);
  document.title = JSON.stringify({ focus, held, after: sessionStorage.getItem(ASKED), titles, vote: window.vote });
})();
"""


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_a_battle_is_voted_on_and_its_prompt_kept_until_then(tmp_path: Path) -> None:
    shown = visited(tmp_path, VOTER)
    assert 'role="alert"' not in shown
    [title] = re.findall(r"<title>(.*?)</title>", shown, re.DOTALL)
    done = json.loads(html.unescape(title))
    assert done["focus"] == "Which answer is better?"  # so that the next Tab is at the first button
    assert done["held"] == "What colour is it?" and done["after"] is None
    assert done["titles"] == ["Answer A: one", "Answer B: two"]
    assert shown.count("<p><strong>blue</strong> &lt;b&gt;</p>") == 2
    assert done["vote"] == {"battle": "b1", "winner": "tie", "judge": "a person"}
