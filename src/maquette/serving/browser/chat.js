// The chat: requests to an assistant and its turns; of a base model, texts that it continues.

let stopping = null;

function describe() {
  const one = chosen();
  at("about").textContent = `${one.id}: ${parameters(one.parameters)} parameters${one.embedding ? ` and an embedding of ${parameters(one.embedding)}` : ""}, ${one.context.toLocaleString("en")} tokens of context. ` +
    (one.assistant ? "It answers requests." : "It was not trained to answer: it continues what you write.");
  at("for-card").hidden = !one.card || at("chat").hidden;
  at("card").replaceChildren(...markdown(one.card || ""));
  at("for-system").hidden = !one.assistant || at("chat").hidden;
  at("words").placeholder = one.assistant ? hint("Ask something", "Enter sends") : hint("Write a beginning", "Enter continues it");
  at("send").textContent = one.assistant ? "Send" : "Continue";
}

/** A turn on the page; a continuation stands in one paragraph with what it continues. */
function shown(kind, name) {
  const turn = make("div", `turn ${kind}`), who = make("div", "who"), message = make("div", "message");
  who.append(make("span", "", name));
  turn.append(who, message);
  at("talk").append(turn);
  return { turn, who, message };
}

function action(view, name, what, title) {
  const button = make("button", "", name);
  if (title) button.title = title;
  button.onclick = () => { if (!at("send").disabled) what(button); };
  view.who.append(button);
  return button;
}

function talked(on) {
  at("send").disabled = on; at("stop").hidden = !on; at("reset").hidden = on; at("model").disabled = on;
}

function placeholder() {
  at("talk").replaceChildren(make("p", "empty", "Conversations are kept in this browser alone" +
    (state.corrections ? "; what you correct is kept as an instruction." : ".")));
}

/** What an answer says: token by token where it is shaded, else in Markdown; a continuation as it is. */
function fill(view, turn, one, pieces) {
  const shaded = Boolean(pieces && pieces.length && at("shade").checked);
  const parts = shaded ? pieces.map(([text, logprob]) => {
    const span = make("span", "token", text), surprise = Math.min(1, -logprob / 6);
    span.title = `probability ${Math.exp(logprob).toPrecision(2)}`;
    span.style.background = `color-mix(in srgb, var(--accent) ${Math.round(60 * surprise)}%, transparent)`;
    return span;
  }) : one.assistant ? markdown(turn.content) : [make("span", "continued", turn.content)];
  view.message.replaceChildren(...(one.assistant ? [] : [make("span", "given", turn.given)]), ...parts);
  view.message.classList.toggle("plain", shaded || !one.assistant);
  if (!turn.content && !turn.open) view.message.append(make("em", "", "(an empty answer)"));
}

const withSystem = (turns) => {
  const system = at("system").value.trim();
  const plain = turns.map(({ role, content }) => ({ role, content }));
  return system ? [{ role: "system", content: system }, ...plain] : plain;
};

/** Asks for the last turn, or for the rest of one that a reload has interrupted: what was shown stays. */
async function answer() {
  const one = chosen(), turns = conversation.turns, began = performance.now();
  let turn = turns[turns.length - 1];
  if (turn.role === "user") {
    turn = { role: "assistant", content: "", ids: [], open: true, settings: sampling() };
    turns.push(turn);
  }
  const asked = turns[turns.length - 2], view = shown(one.assistant ? "assistant" : "assistant continuation", one.id);
  if (!one.assistant) turn.given = asked.content;
  const pieces = turn.ids.length ? null : [];
  let tokens = 0, reason = null, remedy = null, drawing = false;
  stopping = new AbortController();
  talked(true);
  keep();
  fill(view, turn, one, pieces);
  const each = (event) => {
    const choice = event.choices[0], token = choice.logprobs && choice.logprobs.content[0];
    const text = (choice.delta ? choice.delta.content : choice.text) || "";
    if (token && token.id !== undefined) turn.ids.push(token.id);
    if (token && text && pieces) pieces.push([text, token.logprob]);
    turn.content += text;
    tokens += 1;
    reason = choice.finish_reason || reason;
    if (reason) turn.open = false;
    if (drawing) return;
    drawing = true;  // what comes within a moment is drawn at once
    setTimeout(() => {
      drawing = false;
      if (turn.open) { fill(view, turn, one, pieces); keep(); at("talk").scrollTop = at("talk").scrollHeight; }
    }, 50);
  };
  const common = { model: one.id, stream: true, logprobs: true, ...turn.settings };
  if (common.max_tokens) common.max_tokens = Math.max(1, common.max_tokens - turn.ids.length);
  const messages = withSystem(turns.slice(0, -1));
  try {
    if (turn.ids.length) {
      const what = one.assistant ? { messages } : { text: asked.content };
      const { tokens: before } = await post("/api/next", { model: one.id, ...what });
      const prompt = [...before.map((token) => token.id), ...turn.ids];
      await pour("/v1/completions", { ...common, prompt }, each, stopping.signal);
    } else if (one.assistant) {
      await pour("/v1/chat/completions", { ...common, messages }, each, stopping.signal);
    } else {
      await pour("/v1/completions", { ...common, prompt: asked.content }, each, stopping.signal);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      turn.open = false;
      talked(false);
      if (!turn.content) {  // it was not answered: the next message takes its place
        turns.splice(-2);
        view.turn.remove();
        if (error.code === "context_length_exceeded" && turns.length) {
          remedy = make("button", "", "Forget the earlier turns and ask again");
          remedy.onclick = () => {
            begin();
            conversation.turns.push(asked);
            drawConversation();
            answer();
          };
        } else if (!at("words").value) at("words").value = asked.content;
        if (!turns.length) forget(conversation.id);
      }
      keep();
      complain(at("talk"), error, remedy);
      return;
    }
    reason = "stopped";
  }
  turn.open = false;
  talked(false);
  fill(view, turn, one, pieces);
  const seconds = (performance.now() - began) / 1000;
  const why = { length: ", cut at the most tokens", stopped: ", stopped" }[reason] || "";
  view.who.append(make("span", "", `${tokens} tokens, ${(tokens / seconds).toFixed(0)} a second${why}`));
  actions(view, turns.length - 1, one);
  keep();
  list();
  writeNext("words");
}

/** What can be done with the turn at `place`. */
function actions(view, place, one) {
  const turns = conversation.turns, turn = turns[place];
  for (const other of at("talk").querySelectorAll(".again")) other.remove();
  const again = action(view, "again", () => { turns.pop(); view.turn.remove(); answer(); }, "Write it again");
  again.className = "again";
  if (!one.assistant) {
    action(view, "go on", () => {
      turns.splice(-2, 2, { role: "user", content: turn.given + turn.content });
      view.turn.remove();
      answer();
    }, "Continue the whole text").className = "again";
  }
  action(view, "copy", () => navigator.clipboard.writeText((turn.given || "") + turn.content));
  action(view, "tokens", () => {
    const asked = one.assistant ? { messages: withSystem(turns.slice(0, place)) } : { text: turn.given };
    inspect(one, asked, turn.ids || []);
  }, "See each token's probability, and what else was likely");
  if (one.assistant && state.corrections) view.who.append(corrector(view, place, one.id, at("system").value.trim()));
}

/** Shows a turn in the other view: the tokens before it, and its own. */
async function inspect(one, asked, ids) {
  const { tokens: before } = await post("/api/next", { model: one.id, ...asked });
  location.hash = "tokens";
  open("tokens");
  sourceModel = one;
  trail = [];
  await lookAt({ ids: [...before.map((token) => token.id), ...ids] }, before.length);
}

/** A user's turn, which can be written again: what came after it is dropped. */
function showUser(turn) {
  const view = shown("user", "you"), turns = conversation.turns;
  view.message.textContent = turn.content;
  view.message.classList.add("plain");
  action(view, "edit", () => {
    turns.splice(turns.indexOf(turn));
    at("words").value = turn.content;
    drawConversation();
    at("words").focus();
  }, "Write it differently; what came after it is dropped");
}

function drawConversation() {
  const turns = conversation.turns, one = chosen();
  placeholder();
  if (turns.length) at("talk").replaceChildren();
  turns.forEach((turn, place) => {
    if (turn.role === "user") { if (one.assistant) showUser(turn); return; }
    if (turn.open) return;
    const view = shown(one.assistant ? "assistant" : "assistant continuation", one.id);
    fill(view, turn, one);
    actions(view, place, one);
  });
  list();
}

/** Shows a conversation of before; what was being written when the page was left is written to its end. */
function resume(id) {
  const one = recall(id);
  if (!one) return begin();
  conversation = one;
  if (state.models.some((model) => model.id === one.model)) at("model").value = one.model;
  at("system").value = one.system || "";
  describe();
  const last = one.turns[one.turns.length - 1];
  if (last.open && one.model !== chosen().id) last.open = false;
  try { sessionStorage.setItem(`${KEPT}open`, id); } catch { /* not allowed */ }
  drawConversation();
  if (last.open || last.role === "user") answer();
}

/** A button that lets a person write what the answer `turns[place]` should have been; the talk goes on with that. */
function corrector(view, place, model, system) {
  const talk = conversation.turns, turn = talk[place], original = turn.content, button = make("button", "", "correct");
  button.title = "Write what the answer should have been: it is kept as an instruction to train on";
  button.onclick = () => {
    if (at("send").disabled) return;
    const box = make("textarea", "correction"), row = make("div", "who");
    const save = make("button", "", "keep as an instruction"), cancel = make("button", "", "cancel");
    box.value = turn.content;
    box.setAttribute("aria-label", "What the answer should have been");
    const close = () => { box.remove(); row.remove(); view.message.hidden = false; button.disabled = false; button.focus(); };
    cancel.onclick = close;
    box.onkeydown = (event) => { if (event.key === "Escape") close(); };
    save.onclick = async () => {
      save.disabled = true;
      const before = [...(system ? [{ role: "system", content: system }] : []), ...talk.slice(0, place)];
      try {
        const told = await post("/corrections", { messages: before, answer: box.value, original, model, name: at("judge").value });
        turn.content = box.value;
        delete turn.ids;
        view.message.replaceChildren(...markdown(box.value));
        keep();
        view.turn.classList.add("corrected");
        let note = view.who.querySelector(".kept");
        if (!note) view.who.append(note = make("span", "kept"));
        note.textContent = `Kept: ${told.kept} ${told.kept === 1 ? "correction" : "corrections"} so far.`;
        close();
      } catch (error) { complain(view.turn, error); save.disabled = false; }
    };
    row.append(save, cancel);
    view.message.hidden = true;
    view.message.after(box, row);
    button.disabled = true;
    box.focus();
  };
  return button;
}

at("ask").onsubmit = (event) => {
  event.preventDefault();
  const words = at("words").value;
  if (!words.trim() || at("send").disabled) return;
  if (!conversation.turns.length) at("talk").replaceChildren();
  at("words").value = "";
  const turn = { role: "user", content: words };
  if (chosen().assistant) showUser(turn);
  conversation.turns.push(turn);
  answer();
};
at("stop").onclick = () => stopping && stopping.abort();
at("reset").onclick = () => { begin(); drawConversation(); at("words").focus(); };
at("model").onchange = () => {
  begin();
  drawConversation();
  describe();
  sourceModel = null;
  if (!at("tokens").hidden) at("look").requestSubmit();
};
