"""The chat page in a browser, with a server of its own script: it shows an answer, and a correction replaces it."""

import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SERVER = """
const say = (value) => new Response(JSON.stringify(value));
window.fetch = async (address, options) => {
  if (address === "/api/state") return say({
    models: [{ id: "one", assistant: true, context: 128, parameters: 226000 }], arena: null, corrections: { kept: 0 },
    defaults: { temperature: 0.8, top_p: 0.95 },
  });
  const body = JSON.parse(options.body);
  if (address === "/corrections") { window.sent = body; return say({ kept: 1 }); }
  const pieces = ["It is", " Bergen."].map((text) => ({ choices: [
    { delta: { content: text }, finish_reason: null, logprobs: { content: [{ logprob: -1 }] } } ] }));
  return new Response(pieces.map((piece) => `data: ${JSON.stringify(piece)}\\n\\n`).join("") + "data: [DONE]\\n\\n");
};
"""

PERSON = """
const button = (text) => [...document.querySelectorAll("button")].find((one) => one.textContent === text);
const until = async (found) => { while (!found()) await new Promise((go) => setTimeout(go, 5)); return found(); };
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


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_an_answer_is_shown_and_corrected(tmp_path: Path) -> None:
    page = resources.files("maquette.serving").joinpath("page.html").read_text(encoding="utf-8")
    page = page.replace("<script>", f"<script>{SERVER}</script>\n<script>", 1)
    (tmp_path / "page.html").write_text(page.replace("</body>", f"<script>{PERSON}</script>\n</body>"))
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=20000", "--dump-dom", (tmp_path / "page.html").as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert 'role="alert"' not in shown  # nothing that the script complains of
    [answer] = re.findall(r'<div class="turn assistant corrected">.*?<p class="message">(.*?)</p>', shown, re.DOTALL)
    assert answer == "It is Oslo." and "Kept: 1 correction so far." in shown
    [sent] = re.findall(r"<title>(.*?)</title>", shown)
    assert '"answer":"It is Oslo."' in sent and '"original":"It is Bergen."' in sent
    assert '"messages":[{"role":"user","content":"What is the capital of Norway?"}]' in sent
