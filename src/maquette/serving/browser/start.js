// The page: which view is open, and what it begins with.

const VIEWS = ["chat", "tokens", "arena"];

for (const [box, form] of [["words", "ask"], ["challenge-words", "challenge"], ["token-words", "look"]]) {
  at(box).onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); at(form).requestSubmit(); }
  };
}
for (const name of ["temperature", "top_p"]) {
  at(name).oninput = () => {
    at(`show-${name}`).textContent = Number(at(name).value).toFixed(2);
    resample();
  };
}

function open(name) {
  for (const one of VIEWS) {
    at(one).hidden = one !== name;
    at(`tab-${one}`).setAttribute("aria-selected", String(one === name));
    at(`tab-${one}`).tabIndex = one === name ? 0 : -1;
  }
  for (const id of ["for-model", "about"]) at(id).hidden = name === "arena";
  at("for-shade").hidden = name !== "chat";
  at("for-conversations").hidden = name !== "chat" || !at("conversations").children.length;
  at("for-judge").hidden = name !== "arena" && (name !== "chat" || !state.corrections);
  describe();
}

function visit(name) {
  location.hash = name;
  open(name);
  if (name === "tokens" && !seen) at("look").requestSubmit();
  writeNext({ chat: "words", tokens: "token-words", arena: "challenge-words" }[name]);
}

for (const name of VIEWS) {
  at(`tab-${name}`).onclick = () => visit(name);
  at(`tab-${name}`).onkeydown = (event) => {
    const shown = VIEWS.filter((one) => !at(`tab-${one}`).hidden), place = shown.indexOf(name);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = shown[(place + step + shown.length) % shown.length];
    visit(next);
    at(`tab-${next}`).focus();
  };
}

(async () => {
  state = await (await fetch("/api/state")).json();
  for (const one of state.models) {
    at("model").append(new Option(one.id, one.id));
    at("second").append(new Option(one.id, one.id));
  }
  at("for-second").hidden = state.models.length < 2;
  at("temperature").value = state.defaults.temperature;
  at("top_p").value = state.defaults.top_p ?? 1;
  for (const name of ["temperature", "top_p"]) at(name).oninput();
  narrow.onchange = () => {
    at("settings").open = !narrow.matches;
    at("challenge-words").placeholder = hint("A prompt for both", "Enter sends");
    describe();
  };
  narrow.onchange();
  at("tab-arena").hidden = state.arena === null;
  at("fight").replaceChildren(make("p", "empty",
    "Two of the models respond to the same prompt. Which is which you learn when you have voted."));
  begin();
  at("send").disabled = false;  // before, there is nobody to ask
  let id = null;
  try { id = sessionStorage.getItem(`${KEPT}open`); } catch { /* not allowed */ }
  describe();
  drawConversation();
  const name = location.hash.slice(1);
  const view = VIEWS.includes(name) && !at(`tab-${name}`).hidden ? name : "chat";
  if (id && recall(id)) resume(id);
  visit(view);
})();
